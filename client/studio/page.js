// The page around the cards: chapter, tally, connection, notices, and what is said to screen readers.

import { byId, el, options, setText } from "./dom.js";
import { CONNECTION, SHAPES, STYLES } from "./words.js";

const SAY_AFTER_MS = 600;

export class Page {
  #toSay = [];
  #saying = 0;
  #segments = new Map();
  #chapterTitle = "";

  chapter(words, count) {
    this.#chapterTitle = words?.title ?? "A chapter of your own";
    setText(byId("chapter-title"), this.#chapterTitle);
    setText(byId("chapter-book"), words ? `${words.book} · ${words.chapter}` : "Scenewire Studio");
    setText(byId("chapter-lead"), words ? `by ${words.author}, told in ${count} scenes. Ask for their pictures and watch them arrive.` : "Write the scenes, and ask for their pictures.");
    byId("order").hidden = false;
    byId("more").hidden = false;
  }

  choices({ style, shape }) {
    options(byId("all-style"), STYLES, style);
    options(byId("all-ratio"), SHAPES, shape);
  }

  connection(state) {
    const chip = byId("chip");
    if (chip.dataset.state === state) return;
    chip.dataset.state = state;
    setText(byId("chip-text"), CONNECTION[state]);
    byId("reconnect").hidden = state === "live" || state === "connecting";
    chip.title = {
      live: "Changes arrive the moment they happen.",
      polling: "The live line is down: asking every few seconds until it is back.",
      offline: "The service cannot be reached. What is being made goes on without this page.",
    }[state] ?? "";
  }

  /** `scenes`: `[{number, phase, picture, words, can}]`; `can` says that there are words to make a picture of. */
  tally(scenes) {
    const ready = scenes.filter((scene) => scene.picture).length;
    const busy = scenes.filter((scene) => scene.phase === "busy").length;
    const broken = scenes.filter((scene) => scene.phase === "failed").length;
    byId("tally").hidden = scenes.length === 0;
    byId("blank").hidden = scenes.length !== 0;
    setText(byId("tally-count"), `${ready} of ${scenes.length}`);
    const rest = [busy && `${busy} in progress`, broken && `${broken} failed`].filter(Boolean).join(", ");
    setText(byId("tally-rest"), `${scenes.length === 1 ? "picture" : "pictures"} ready${rest ? ` · ${rest}` : ""}`);
    this.#drawSegments(scenes);
    document.title = `${ready ? `(${ready}/${scenes.length}) ` : ""}${this.#chapterTitle} · Scenewire Studio`;

    const able = scenes.filter((scene) => scene.can);
    const missing = able.filter((scene) => !scene.picture && scene.phase !== "busy").length;
    const button = byId("request-all");
    const plain = missing === able.length ? (missing === 1 ? "Make the picture" : `Make all ${missing} pictures`) : `Make the ${missing === 1 ? "missing picture" : `${missing} missing pictures`}`;
    const making = `Making ${busy === 1 ? "a picture" : `${busy} pictures`}…`;
    setText(button, able.length === 0 ? "Make all pictures" : missing ? plain : busy ? making : "Make all again");
    const off = able.length === 0 || (!missing && busy > 0) || able.every((scene) => scene.phase === "loading");
    button.setAttribute("aria-disabled", String(off));
  }

  #drawSegments(scenes) {
    const list = byId("segments");
    const numbers = scenes.map((scene) => scene.number).join();
    if (list.dataset.numbers !== numbers) {
      list.dataset.numbers = numbers;
      this.#segments = new Map(scenes.map(({ number }) => [number, el("a", { href: `#scene-${number}` })]));
      list.replaceChildren(...[...this.#segments.values()].map((link) => el("li", {}, link)));
    }
    for (const scene of scenes) {
      const link = this.#segments.get(scene.number);
      link.dataset.phase = scene.phase;
      link.dataset.picture = scene.picture ? "yes" : "no";
      const words = `Scene ${scene.number}: ${scene.words}`;
      if (link.title !== words) {
        link.title = words;
        link.setAttribute("aria-label", words);
      }
    }
  }

  /** In place of the scenes: a question for the token. Resolves with it. */
  askToken(reason) {
    this.#notice("Who is asking?", reason);
    const form = byId("token-form");
    const input = byId("token");
    form.hidden = false;
    input.value = "";
    input.focus();
    return new Promise((answer) => {
      form.onsubmit = (event) => {
        event.preventDefault();
        const token = input.value.trim().replace(/^Bearer\s+/i, "");
        if (!token) return;
        input.value = "";
        form.hidden = true;
        this.#unlock();
        answer(token);
      };
    });
  }

  /** In place of the scenes: what went wrong. Resolves when the person wants to try again. */
  offerRetry(title, text) {
    this.#notice(title, text);
    setText(byId("chapter-title"), "Scenewire Studio");
    const button = byId("notice-action");
    button.hidden = false;
    button.focus();
    return new Promise((again) => {
      button.onclick = () => {
        button.hidden = true;
        this.#unlock();
        again();
      };
    });
  }

  #notice(title, text) {
    setText(byId("notice-title"), title);
    setText(byId("notice-text"), text);
    byId("notice").hidden = false;
    document.body.dataset.locked = "yes";
  }

  #unlock() {
    byId("notice").hidden = true;
    delete document.body.dataset.locked;
  }

  /** Said politely, several at once when they come together. */
  say(text) {
    if (!this.#toSay.includes(text)) this.#toSay.push(text);
    if (this.#saying) return;
    this.#saying = setTimeout(() => {
      this.#saying = 0;
      byId("announcer").textContent = this.#toSay.splice(0).join(". ");
    }, SAY_AFTER_MS);
  }
}
