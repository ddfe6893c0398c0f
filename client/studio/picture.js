// The frame of a card: an aspect-ratio box whose picture changes by a fade, never by a gap.

import { el, isWebAddress } from "./dom.js";

export class Picture {
  #shown = null;
  #url = null;
  #open;
  #lost;

  constructor(number, onOpen) {
    this.#open = el("button", { class: "open", type: "button", hidden: true, "aria-label": `Open the picture of scene ${number} large`, onclick: onOpen });
    this.#lost = el(
      "p",
      { class: "lost", hidden: true },
      "The picture could not be loaded. ",
      el("button", { type: "button", class: "quiet small", onclick: () => this.#load(this.#url) }, "Load again"),
    );
    this.elements = [this.#open, this.#lost];
  }

  get url() {
    return this.#url;
  }

  /** Shows the picture at `url` once it is loaded; what was shown before stays until then. */
  show(url, alt, onLoaded) {
    if (this.#shown) this.#shown.alt = alt;
    if (url === this.#url || !isWebAddress(url)) return;
    this.#url = url;
    this.#load(url, alt, onLoaded);
  }

  #load(url, alt = "", onLoaded = () => {}) {
    this.#lost.hidden = true;
    const image = el("img", { alt, class: "arriving" });
    const arrived = () => {
      if (url !== this.#url) return;
      const before = this.#shown;
      this.#shown = image;
      this.#open.append(image);
      this.#open.hidden = false;
      onLoaded(image.naturalWidth / image.naturalHeight);
      const settle = () => {
        image.classList.remove("arriving");
        before?.remove();
      };
      // a page in the background plays no animation
      if (document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) return settle();
      image.addEventListener("animationend", settle, { once: true });
    };
    const failed = () => {
      if (url === this.#url) this.#lost.hidden = false;
    };
    image.src = url;
    // decoded before it is put in place: the fade starts with a picture, not with an empty box
    image.decode().then(arrived, failed);
  }
}
