// One scene: its picture, what is going on with it, its words, and what can be done.

import { el, setText } from "./dom.js";
import { Editor } from "./editor.js";
import { Picture } from "./picture.js";
import { failed, isUnderWay, made, ratioOf, SHAPES, span, STYLES, underWay } from "./words.js";

const label = (choices, value) => choices.find(([name]) => name === value)?.[1] ?? value;
const BADGES = { loading: "", empty: "", busy: "In progress", failed: "Failed", ready: "Ready" };
const LONG = 700; // characters
const TALLEST = 3 / 4;
const WIDE = 1.2;

export class Card {
  #number;
  #parts;
  #picture;
  #editor;
  #view = { latest: null, current: null };
  #loading = true;
  #sending = false;
  #refusal = "";

  /** `on`: request(number), open(number), save(number, words), restore(number). */
  constructor(scene, on) {
    const number = scene.number;
    this.#number = number;
    this.#picture = new Picture(number, () => on.open(number));
    this.#editor = new Editor(number, {
      onSave: (words) => {
        this.#closeEditor();
        on.save(number, words);
      },
      onRestore: () => {
        this.#closeEditor();
        on.restore(number);
      },
      onClose: () => this.#closeEditor(),
    });
    const parts = (this.#parts = {
      badge: el("span", { class: "badge" }),
      title: el("h2", { id: `scene-${number}-title`, dir: "auto" }),
      words: el("p", { class: "description", id: `scene-${number}-words`, dir: "auto" }),
      whole: el("button", { type: "button", class: "whole", "aria-controls": `scene-${number}-words`, onclick: () => this.#showWhole(this.element.dataset.words === "cut") }),
      look: el("p", { class: "look" }),
      fault: el("p", { class: "fault", hidden: true }),
      facts: el("p", { class: "facts" }),
      headline: el("span", { class: "headline" }),
      percent: el("span", { class: "percent" }),
      detail: el("p", { class: "detail" }),
      fill: el("div", { class: "fill" }),
      make: el("button", { type: "button", class: "primary make", onclick: () => on.request(number) }),
      edit: el("button", { type: "button", class: "quiet edit", onclick: () => this.#openEditor() }, "Edit"),
      blank: el("p", { class: "blank-words" }),
    });
    parts.edit.setAttribute("aria-label", `Edit scene ${number}`);
    parts.progress = el("div", { class: "progress", role: "progressbar", "aria-label": `Scene ${number}`, "aria-valuemin": 0, "aria-valuemax": 100 }, parts.fill);
    parts.overlay = el("div", { class: "overlay", hidden: true }, el("p", { class: "stage" }, parts.headline, parts.percent), parts.progress, parts.detail);
    parts.frame = el(
      "div",
      { class: "frame" },
      el("p", { class: "numeral", "aria-hidden": "true" }, String(number)),
      parts.blank,
      ...this.#picture.elements,
      parts.overlay,
    );
    parts.article = el(
      "article",
      { "aria-labelledby": parts.title.id },
      parts.frame,
      el(
        "div",
        { class: "body" },
        el("p", { class: "eyebrow" }, el("span", {}, `Scene ${number}`), parts.badge),
        parts.title,
        parts.words,
        parts.whole,
        parts.fault,
        el("div", { class: "foot-row" }, parts.look, parts.facts),
        el("div", { class: "actions" }, parts.make, parts.edit),
        this.#editor.element,
      ),
    );
    this.element = el("li", { class: "card", id: `scene-${number}` }, parts.article);
    this.words(scene, { style: "", shape: "" });
  }

  get phase() {
    if (this.#sending || isUnderWay(this.#view.latest)) return "busy";
    if (this.#refusal || ["failed", "cancelled"].includes(this.#view.latest?.status)) return "failed";
    if (this.#view.current) return "ready";
    return this.#loading ? "loading" : "empty";
  }

  /** Shows the scene's words; `choices` are the chapter's style and shape. */
  words(scene, choices) {
    this.scene = scene;
    const { title, words, whole, look } = this.#parts;
    setText(title, scene.title);
    whole.hidden = scene.description.length < LONG;
    if (words.textContent !== scene.description) this.#showWhole(whole.hidden);
    setText(words, scene.description || "This scene has no words yet. Edit it to say what is to be seen.");
    words.classList.toggle("missing", !scene.description);
    const shape = scene.shape ?? choices.shape;
    setText(look, [label(STYLES, scene.style ?? choices.style), label(SHAPES, shape), scene.customPrompt && "own prompt", scene.changed && "edited"].filter(Boolean).join(" · "));
    if (!this.#view.current) this.#shape(ratioOf(shape));
    this.#picture.describe(this.#alt);
  }

  update(view) {
    this.#view = view;
    this.#loading = false;
    if (view.latest?.version !== 0) this.#refusal = "";
    if (view.current) this.#picture.show(view.current, this.#alt, (ratio) => this.#shape(ratio));
    this.draw();
  }

  loaded() {
    this.#loading = false;
    this.draw();
  }

  sending(isSending) {
    this.#sending = isSending;
    if (isSending) this.#refusal = "";
    this.draw();
  }

  /** The request was not accepted. */
  refuse(error) {
    this.#refusal = error.message;
    if (error.fields.length) {
      this.#openEditor();
      this.#editor.showFaults(error.fields);
    }
    this.draw();
  }

  edit() {
    this.#openEditor();
  }

  draw(now = Date.now()) {
    const { latest, current } = this.#view;
    const phase = this.phase;
    const parts = this.#parts;
    this.element.dataset.phase = phase;
    this.element.dataset.picture = current ? "yes" : "no";
    this.element.dataset.stage = phase === "busy" ? (latest?.stage ?? "queued") : "";
    setText(parts.badge, phase === "busy" && current ? "New picture in progress" : BADGES[phase]);
    setText(parts.blank, phase === "failed" ? "No picture" : phase === "loading" ? "Looking for the picture" : phase === "empty" ? "No picture yet" : "");
    parts.overlay.hidden = phase !== "busy";
    if (phase === "busy") this.#drawProgress(now);
    parts.fault.hidden = phase !== "failed";
    if (phase === "failed") setText(parts.fault, this.#refusal || failed(latest));
    setText(parts.facts, current && phase !== "busy" ? made(current) : "");
    const action = phase === "failed" ? "Try again" : phase === "busy" ? "Making…" : current ? "Make again" : "Make picture";
    setText(parts.make, action);
    parts.make.setAttribute("aria-label", `${action.replace("…", "")}: scene ${this.#number}`);
    parts.make.classList.toggle("again", phase === "ready");
    // disabled would throw the keyboard's focus off the button
    parts.make.setAttribute("aria-disabled", String(phase === "busy" || phase === "loading"));
  }

  #drawProgress(now) {
    const parts = this.#parts;
    const latest = this.#view.latest;
    const state = isUnderWay(latest)
      ? underWay(latest, now)
      : { headline: "Sending the request", detail: "", progress: 0 };
    setText(parts.headline, state.headline);
    setText(parts.percent, state.progress ? `${state.progress}%` : "");
    const since = isUnderWay(latest) ? (now - Date.parse(latest.created_at)) / 1000 : 0;
    setText(parts.detail, [state.detail, since >= 3 ? `${span(since)} so far` : ""].filter(Boolean).join(" · "));
    parts.fill.style.setProperty("width", `${Math.max(2, state.progress)}%`);
    parts.progress.setAttribute("aria-valuenow", String(state.progress));
    parts.progress.setAttribute("aria-valuetext", `${state.headline}, ${state.progress}%`);
  }

  get #alt() {
    return this.scene.description || `Picture of scene ${this.#number}`;
  }

  // Tall pictures are shown whole inside a box that does not push the page apart.
  #shape(ratio) {
    this.#parts.frame.style.setProperty("aspect-ratio", String(Math.max(TALLEST, ratio || 16 / 9)));
    this.element.dataset.whole = ratio < WIDE ? "yes" : "no";
  }

  #showWhole(isWhole) {
    this.element.dataset.words = isWhole ? "whole" : "cut";
    setText(this.#parts.whole, isWhole ? "Show less" : "Show all");
    this.#parts.whole.setAttribute("aria-expanded", String(isWhole));
  }

  #openEditor() {
    // what is being typed is not thrown away
    if (this.#editor.isOpen) return;
    this.element.dataset.editing = "yes";
    this.#editor.open(this.scene);
  }

  #closeEditor() {
    if (!this.#editor.isOpen) return;
    this.#editor.close();
    delete this.element.dataset.editing;
    this.#parts.edit.focus();
  }
}
