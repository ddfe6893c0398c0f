// The frame of a card: an aspect-ratio box whose picture changes by a fade, never by a gap.

import { el, isWebAddress } from "./dom.js";

const THUMBNAIL_WIDTH = 480; // pixels, as the service makes them
const BLOWN_UP = 1.25;

export class Picture {
  #shown = null;
  #current = null;
  #alt = "";
  #open;
  #lost;

  constructor(number, onOpen) {
    this.#open = el("button", { class: "open", type: "button", hidden: true, "aria-label": `Open the picture of scene ${number} large`, onclick: onOpen });
    this.#lost = el(
      "p",
      { class: "lost", hidden: true },
      "The picture could not be loaded. ",
      el("button", { type: "button", class: "quiet small", onclick: () => this.#load(this.#current) }, "Load again"),
    );
    this.elements = [this.#open, this.#lost];
  }

  /** The words for who cannot see it. */
  describe(alt) {
    this.#alt = alt;
    if (this.#shown) this.#shown.alt = alt;
  }

  /** Shows the picture of a completed image once it is loaded; what was shown before stays until then. */
  show(image, alt, onLoaded) {
    this.describe(alt);
    if (image.image_url === this.#current?.image_url || !isWebAddress(image.image_url)) return;
    this.#current = image;
    this.#load(image, onLoaded);
  }

  // The thumbnail where it is sharp enough. Not of every picture can one be made: then, and where it would be blown up, the picture.
  #addresses({ image_url: whole, thumbnail_url: thumbnail }) {
    const width = this.#open.parentElement?.clientWidth ?? 0;
    return isWebAddress(thumbnail) && width <= THUMBNAIL_WIDTH * BLOWN_UP ? [thumbnail, whole] : [whole];
  }

  async #load(current, onLoaded = () => {}) {
    this.#lost.hidden = true;
    for (const url of this.#addresses(current)) {
      const image = el("img", { alt: this.#alt, class: "arriving", src: url });
      try {
        // decoded before it is put in place: the fade starts with a picture, not with an empty box
        await image.decode();
      } catch {
        continue;
      }
      if (current === this.#current) this.#put(image, onLoaded);
      return;
    }
    if (current === this.#current) this.#lost.hidden = false;
  }

  #put(image, onLoaded) {
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
    if (document.hidden || matchMedia("(prefers-reduced-motion: reduce)").matches) settle();
    else image.addEventListener("animationend", settle, { once: true });
  }
}
