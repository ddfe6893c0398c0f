// The form on a card: the scene's words, its style and shape, and a prompt of one's own.

import { el } from "./dom.js";
import { SHAPES, STYLES } from "./words.js";

const DESCRIPTION_MOST = 4000;
const PROMPT_MOST = 2000;
const FIELDS = { scene_description: "description", custom_prompt: "customPrompt", style: "style", aspect_ratio: "shape" };

export class Editor {
  #number;
  #inputs = {};
  #faults = {};
  #restore;
  #opened = "";

  /** `onSave(words)`, `onRestore()`, `onClose()`. */
  constructor(number, { onSave, onRestore, onClose }) {
    this.#number = number;
    this.#restore = el("button", { type: "button", class: "quiet small", onclick: onRestore }, "");
    this.element = el(
      "form",
      { class: "editor", hidden: true, novalidate: true, "aria-label": `Words and look of scene ${number}` },
      this.#field("description", "What is to be seen", el("textarea", { rows: 5, maxlength: DESCRIPTION_MOST, required: true, dir: "auto" })),
      el(
        "div",
        { class: "pair" },
        this.#field("style", "Style", this.#select("As the chapter", STYLES)),
        this.#field("shape", "Shape", this.#select("As the chapter", SHAPES)),
      ),
      this.#field(
        "customPrompt",
        "Your own prompt (optional)",
        el("textarea", { rows: 2, maxlength: PROMPT_MOST, dir: "auto", placeholder: "e.g. pen and ink, warm evening light" }),
      ),
      el(
        "div",
        { class: "actions" },
        el("button", { type: "submit", class: "primary small" }, "Save"),
        el("button", { type: "button", class: "quiet small", onclick: onClose }, "Cancel"),
        this.#restore,
      ),
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#check()) onSave(this.#words());
    });
    this.element.addEventListener("keydown", (event) => {
      // words that were typed are given up by "Cancel" alone
      if (event.key === "Escape" && this.#opened === JSON.stringify(this.#words())) onClose();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.element.requestSubmit();
    });
  }

  get isOpen() {
    return !this.element.hidden;
  }

  open(scene) {
    this.#inputs.description.value = scene.description;
    this.#inputs.style.value = scene.style ?? "";
    this.#inputs.shape.value = scene.shape ?? "";
    this.#inputs.customPrompt.value = scene.customPrompt;
    this.#restore.textContent = scene.added ? "Remove the scene" : "Restore the chapter’s words";
    this.#restore.hidden = !scene.added && !scene.changed;
    for (const name of Object.keys(this.#faults)) this.#fault(name, "");
    this.#opened = JSON.stringify(this.#words());
    this.element.hidden = false;
    this.#inputs.description.focus();
  }

  close() {
    this.element.hidden = true;
  }

  /** Shows the service's own words beside the fields they are about; returns whether any had a place here. */
  showFaults(fields) {
    let placed = false;
    for (const { field, message } of fields) {
      const name = FIELDS[String(field).split(".").at(-1)];
      if (!name) continue;
      this.#fault(name, message);
      if (!placed) this.#inputs[name].focus();
      placed = true;
    }
    return placed;
  }

  #words() {
    return {
      description: this.#inputs.description.value.trim(),
      style: this.#inputs.style.value || null,
      shape: this.#inputs.shape.value || null,
      customPrompt: this.#inputs.customPrompt.value.trim(),
    };
  }

  #check() {
    const empty = !this.#inputs.description.value.trim();
    this.#fault("description", empty ? "Describe the scene in a few words." : "");
    if (empty) this.#inputs.description.focus();
    return !empty;
  }

  #select(unset, choices) {
    return el("select", {}, el("option", { value: "" }, unset), ...choices.map(([value, label]) => el("option", { value }, label)));
  }

  #field(name, label, input) {
    input.id = `scene-${this.#number}-${name}`;
    const fault = el("p", { class: "field-fault", id: `${input.id}-fault`, hidden: true });
    input.setAttribute("aria-describedby", fault.id);
    this.#inputs[name] = input;
    this.#faults[name] = fault;
    return el("div", { class: "field" }, el("label", { for: input.id }, label), input, fault);
  }

  #fault(name, message) {
    this.#faults[name].textContent = message;
    this.#faults[name].hidden = !message;
    this.#inputs[name].toggleAttribute("aria-invalid", Boolean(message));
    if (message) this.#inputs[name].setAttribute("aria-invalid", "true");
  }
}
