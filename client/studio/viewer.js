// The large view: a dialog over the page, with the pictures of the chapter in order.

import { byId, setText } from "./dom.js";

export class Viewer {
  #pictures;
  #number = null;
  #dialog = byId("viewer");

  /** `pictures()` gives `[{number, title, description, url}]` in order. */
  constructor(pictures) {
    this.#pictures = pictures;
    byId("viewer-close").addEventListener("click", () => this.#dialog.close());
    byId("viewer-previous").addEventListener("click", () => this.#step(-1));
    byId("viewer-next").addEventListener("click", () => this.#step(1));
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#step(-1);
      if (event.key === "ArrowRight") this.#step(1);
    });
    this.#dialog.addEventListener("close", () => {
      this.#number = null;
    });
  }

  open(number) {
    this.#number = number;
    this.refresh();
    if (this.#number !== null && !this.#dialog.open) this.#dialog.showModal();
  }

  /** A picture that was made anew while it is open is shown at once. */
  refresh() {
    if (this.#number === null) return;
    const pictures = this.#pictures();
    const at = pictures.findIndex((picture) => picture.number === this.#number);
    if (at < 0) return;
    const { number, title, description, url } = pictures[at];
    setText(byId("viewer-number"), `Scene ${number}`);
    setText(byId("viewer-title"), title);
    const image = byId("viewer-image");
    image.alt = description;
    if (image.src !== url) image.src = url;
    byId("viewer-original").href = url;
    // disabled would throw the keyboard's focus out of the dialog
    byId("viewer-previous").setAttribute("aria-disabled", String(at === 0));
    byId("viewer-next").setAttribute("aria-disabled", String(at === pictures.length - 1));
  }

  #step(by) {
    const pictures = this.#pictures();
    const at = pictures.findIndex((picture) => picture.number === this.#number);
    const next = pictures[at + by];
    if (next) this.open(next.number);
  }
}
