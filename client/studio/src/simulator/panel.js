// The studio's hidden panel for the simulated provider: its profile, rules of one's own, and what it was asked and charged.
//
// An element of its own, for any page: `installSimulator(url)` puts it there and opens it by Alt+Shift+S or `#simulator`.
// It exists only where a simulator runs: its address comes from the page's config.json.

import { callsOf } from "./calls.js";
import { el, setText } from "./dom.js";
import { FATES, faultLabel, PROFILES, ruleOf, ruleWords } from "./modes.js";

const HASH = "#simulator";
const LOOK_EVERY_MS = 2_000;
const JOBS_SHOWN = 8;
const COUNTS = [
  ["submits", "Submits"],
  ["charged", "Charged"],
  ["in_flight", "In flight"],
  ["rate_limited", "Turned away"],
  ["fetches", "Fetches"],
  ["pictures", "Picture GETs"],
];

export class SimulatorPanel extends HTMLElement {
  #parts;
  #call;
  #looking = 0;
  #script = {};
  #faults = {};
  #asked = 0;
  #before = null;

  connectedCallback() {
    if (this.#parts) return;
    this.#call = callsOf(this.getAttribute("src"));
    this.#build();
    this.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.stopPropagation();
      this.close();
    });
  }

  disconnectedCallback() {
    clearInterval(this.#looking);
  }

  get isOpen() {
    return this.#parts.dialog.open;
  }

  /** Beside the page, which stays usable: what is chosen here is seen there. */
  open() {
    if (this.isOpen) return;
    this.#before = document.activeElement;
    this.#parts.dialog.show();
    this.#parts.title.focus();
    this.#look();
    this.#looking = setInterval(() => document.hidden || this.#count(), LOOK_EVERY_MS);
  }

  close() {
    if (!this.isOpen) return;
    clearInterval(this.#looking);
    this.#parts.dialog.close();
    if (location.hash === HASH) history.replaceState(null, "", location.pathname + location.search);
    if (this.#before?.isConnected) this.#before.focus();
  }

  async #guarded(work, done = "") {
    try {
      await work();
      this.#say(done, false);
    } catch (error) {
      this.#say(error.message, true);
    }
  }

  #look() {
    return this.#guarded(async () => {
      const [script, words] = await Promise.all([this.#call("script"), this.#call("words")]);
      this.#faults = words.faults;
      this.#drawFaults();
      this.#take(script);
      await this.#count();
    });
  }

  #play(script, done) {
    return this.#guarded(async () => {
      const body = JSON.stringify(script);
      this.#take(await this.#call("script", { method: "PUT", headers: { "Content-Type": "application/json" }, body }));
    }, done);
  }

  async #count() {
    this.#asked += 1;
    const asked = this.#asked;
    try {
      const [counters, { jobs }] = await Promise.all([this.#call("counters"), this.#call(`jobs?limit=${JOBS_SHOWN}`)]);
      // an older answer that comes late says nothing new
      if (asked === this.#asked) this.#drawCounts(counters, jobs);
    } catch (error) {
      this.#say(error.message, true);
    }
  }

  #take(script) {
    this.#script = script;
    for (const input of this.#parts.profiles.querySelectorAll("input")) input.checked = input.value === script.profile;
    const rules = script.rules ?? [];
    this.#parts.noRules.hidden = rules.length > 0;
    this.#parts.rules.replaceChildren(
      ...rules.map((rule, at) => {
        const { what, when } = ruleWords(rule);
        const others = rules.filter((_, other) => other !== at);
        const remove = () =>
          this.#play({ ...this.#script, rules: others }, "The rule is gone.").then(() => this.#parts.title.focus());
        return el(
          "li",
          {},
          el("span", {}, el("strong", {}, what), el("span", { class: "when" }, when)),
          el(
            "button",
            {
              type: "button",
              class: "quiet small",
              "aria-label": `Remove the rule: ${what}, ${when}`,
              onclick: remove,
            },
            "Remove",
          ),
        );
      }),
    );
  }

  #drawFaults() {
    const group = el("optgroup", { label: "Refusals and failures" });
    group.append(
      ...Object.entries(this.#faults).map(([name, fault]) =>
        el("option", { value: `fault:${name}` }, faultLabel(name, fault)),
      ),
    );
    const chosen = this.#parts.fate.value;
    this.#parts.fate.querySelector("optgroup + optgroup")?.remove();
    this.#parts.fate.append(group);
    this.#parts.fate.value = chosen;
  }

  #drawCounts(counters, jobs) {
    for (const [name] of COUNTS) setText(this.#parts.counts[name], String(counters[name] ?? 0));
    this.#parts.jobs.hidden = jobs.length === 0;
    this.#parts.jobRows.replaceChildren(
      ...jobs
        .reverse()
        .map(({ id, state, model, prompt, charged }) =>
          el(
            "tr",
            {},
            el("td", {}, state),
            el("td", {}, charged ? "charged" : "free"),
            el("td", { class: "prompt", title: `${id}: ${prompt}` }, el("strong", {}, model), ` ${prompt}`),
          ),
        ),
    );
  }

  #say(text, isBad) {
    this.#parts.said.classList.toggle("bad", isBad);
    setText(this.#parts.said, text);
  }

  #build() {
    const parts = { counts: Object.fromEntries(COUNTS.map(([name]) => [name, el("dd", {}, "–")])) };
    this.#parts = parts;
    parts.title = el("h2", { id: "simulator-title", tabindex: -1 }, "Simulated ModelsLab");
    parts.said = el("p", { class: "said", role: "status" });
    parts.profiles = el(
      "fieldset",
      { class: "profiles" },
      el("legend", {}, "How its day is"),
      ...PROFILES.map(([name, label, words]) => {
        const choose = () => this.#play({ ...this.#script, profile: name }, `${label}: from the next call on.`);
        return el(
          "label",
          {},
          el("input", { type: "radio", name: "simulator-profile", value: name, onchange: choose }),
          el("span", {}, el("strong", {}, label), el("span", { class: "when" }, words)),
        );
      }),
    );
    parts.fate = el(
      "select",
      { id: "simulator-fate" },
      el("optgroup", { label: "How a call goes" }, ...FATES.map(([key, label]) => el("option", { value: key }, label))),
    );
    parts.text = el("input", { id: "simulator-text", autocomplete: "off", placeholder: "any prompt" });
    parts.model = el("input", { id: "simulator-model", autocomplete: "off", placeholder: "any model" });
    parts.nth = el("input", {
      id: "simulator-nth",
      type: "number",
      min: 1,
      step: 1,
      inputmode: "numeric",
      placeholder: "every",
    });
    parts.percent = el("input", {
      id: "simulator-percent",
      type: "number",
      min: 1,
      max: 100,
      inputmode: "numeric",
      placeholder: "100",
    });
    parts.rules = el("ol", { class: "rules", "aria-label": "Rules in force" });
    parts.noRules = el("p", { class: "when" }, "No rules: the profile alone decides.");
    parts.jobRows = el("tbody");
    parts.jobs = el(
      "table",
      { hidden: true },
      el("caption", {}, "Latest jobs"),
      el("thead", {}, el("tr", {}, ...["State", "Cost", "Asked for"].map((head) => el("th", { scope: "col" }, head)))),
      parts.jobRows,
    );
    const field = (label, input) => el("div", { class: "field" }, el("label", { for: input.id }, label), input);
    const form = el(
      "form",
      { "aria-labelledby": "simulator-rule", onsubmit: (event) => this.#add(event) },
      el("h3", { id: "simulator-rule" }, "A rule of your own"),
      field("What happens", parts.fate),
      el("div", { class: "pair" }, field("Prompt contains", parts.text), field("Model is", parts.model)),
      el("div", { class: "pair" }, field("Only call number", parts.nth), field("In percent of calls", parts.percent)),
      el("button", { type: "submit", class: "primary small" }, "Add the rule"),
    );
    const clear = () => this.#play({}, "Back to how it was started, without rules.");
    parts.dialog = el(
      "dialog",
      { class: "simulator", "aria-labelledby": parts.title.id },
      el(
        "div",
        { class: "head" },
        parts.title,
        el("button", { type: "button", class: "quiet small", onclick: () => this.close() }, "Close"),
      ),
      el(
        "p",
        { class: "when" },
        "It stands in for the provider on this machine. What you choose holds for everybody who uses it, from the next call on.",
      ),
      parts.said,
      parts.profiles,
      form,
      el("h3", {}, "Rules in force"),
      parts.noRules,
      parts.rules,
      el("button", { type: "button", class: "quiet small", onclick: clear }, "Clear all"),
      el("h3", {}, "What it was asked"),
      el(
        "dl",
        { class: "counts" },
        ...COUNTS.map(([name, label]) => el("div", {}, el("dt", {}, label), parts.counts[name])),
      ),
      parts.jobs,
    );
    this.append(parts.dialog);
  }

  #add(event) {
    event.preventDefault();
    const { fate, text, model, nth, percent } = this.#parts;
    const fault = fate.value.startsWith("fault:") ? fate.value.slice("fault:".length) : null;
    const action = fault ? { answer: "error", fault } : FATES.find(([key]) => key === fate.value)[2];
    const rule = ruleOf({ text: text.value, model: model.value, nth: nth.value, percent: percent.value, action });
    // the newest first: the first rule that fits decides
    this.#play({ ...this.#script, rules: [rule, ...(this.#script.rules ?? [])] }, "The rule is in force.");
  }
}

if (!customElements.get("simulator-panel")) customElements.define("simulator-panel", SimulatorPanel);

/** Puts the panel of the simulator at `url` into the page; returns what takes it away again. */
export function installSimulator(url) {
  const panel = el("simulator-panel", { src: url });
  document.body.append(panel);
  const byHash = () => location.hash === HASH && panel.open();
  const byKey = (event) => {
    // by place on the keyboard: with Alt the letter itself differs between systems
    if (!event.altKey || !event.shiftKey || event.ctrlKey || event.metaKey || event.code !== "KeyS") return;
    event.preventDefault();
    if (panel.isOpen) panel.close();
    else panel.open();
  };
  addEventListener("hashchange", byHash);
  addEventListener("keydown", byKey);
  byHash();
  return () => {
    removeEventListener("hashchange", byHash);
    removeEventListener("keydown", byKey);
    panel.remove();
  };
}
