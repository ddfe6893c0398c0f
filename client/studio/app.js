// The studio: puts words, service, feed and page together.

import { Api, ApiError, claimsOf, loadChapter, loadConfig, newUuid } from "./api.js";
import { Card } from "./card.js";
import { byId, isWebAddress } from "./dom.js";
import { Feed } from "./feed.js";
import { Page } from "./page.js";
import { Scenes } from "./scenes.js";
import { installSimulator } from "./simulator/panel.js";
import { Store } from "./store.js";
import { Viewer } from "./viewer.js";
import { failed, isWaiting, underWay } from "./words.js";

const TOKEN_KEY = "scenewire.token";
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const AT_ONCE = 6;
const RENEW_BEFORE_MS = 120_000;
const RENEW_AGAIN_MS = 30_000;

class Studio {
  #page = new Page();
  #cards = new Map();
  #store = new Store((number, view, before) => this.#changed(number, view, before));
  #viewer = new Viewer(() => this.#pictures());
  #tallying = 0;
  #config;
  #chapterId;
  #scenes;
  #api;
  #feed;
  #token;
  #renewAt = Infinity;

  async start() {
    try {
      this.#config = await loadConfig();
    } catch {
      await this.#page.offerRetry("The studio cannot reach its service", "Check that Scenewire is running and that you are connected, then try again.");
      return this.start();
    }
    await this.#openChapter();
    if (isWebAddress(this.#config.simulator_url)) installSimulator(this.#config.simulator_url);
    this.#listen();
    await this.#connect(this.#config.token ?? this.#keptToken());
    setInterval(() => this.#tick(), 1000);
    return undefined;
  }

  // ?chapter=<uuid> opens a chapter of one's own; the served words belong to the chapter of config.json alone.
  async #openChapter() {
    const asked = new URL(location.href).searchParams.get("chapter");
    this.#chapterId = UUID.test(asked ?? "") ? asked.toLowerCase() : this.#config.chapter_id;
    let words = null;
    if (!this.#chapterId) {
      this.#chapterId = newUuid();
      history.replaceState(null, "", `?chapter=${this.#chapterId}`);
    } else if (this.#chapterId === this.#config.chapter_id) {
      words = await loadChapter().catch(() => null);
    }
    this.#scenes = new Scenes(this.#chapterId, words);
    this.#page.chapter(words, words?.scenes.length);
    this.#page.choices(this.#scenes.choices);
    this.#drawCards();
  }

  #listen() {
    byId("order").addEventListener("submit", (event) => {
      event.preventDefault();
      if (byId("request-all").getAttribute("aria-disabled") !== "true") this.#requestAll();
    });
    byId("order").addEventListener("change", () => {
      this.#scenes.choose({ style: byId("all-style").value, shape: byId("all-ratio").value });
      for (const [number, card] of this.#cards) card.words(this.#scenes.get(number), this.#scenes.choices);
    });
    byId("add-scene").addEventListener("click", () => {
      const number = this.#scenes.add();
      this.#drawCards();
      this.#cards.get(number).edit();
    });
    byId("reconnect").addEventListener("click", () => this.#feed?.reconnect());
    addEventListener("pagehide", () => this.#feed?.stop());
    addEventListener("pageshow", (event) => event.persisted && this.#connect(this.#token));
  }

  #keptToken() {
    try {
      return sessionStorage.getItem(TOKEN_KEY);
    } catch {
      return null;
    }
  }

  async #connect(token, reason = "This studio shows you your own pictures. Paste your access token to open it.") {
    if (!token) {
      token = await this.#page.askToken(reason);
      try {
        sessionStorage.setItem(TOKEN_KEY, token);
      } catch {
        // without storage the token lives as long as the page
      }
    }
    this.#use(token);
    this.#api = new Api(this.#config, token);
    this.#feed?.stop();
    this.#feed = new Feed({
      api: this.#api,
      config: this.#config,
      token,
      chapterId: this.#chapterId,
      onState: (state) => this.#page.connection(state),
      onImages: (images) => this.#arrived(images),
      onUnauthorised: () => this.#unauthorised(),
      isWaiting: () => [...this.#cards.keys()].some((number) => isWaiting(this.#store.scene(number).latest)),
    });
    this.#feed.start();
  }

  // A pasted token ends when it ends; one of config.json may have a successor there before that.
  #use(token) {
    this.#token = token;
    const left = (claimsOf(token).exp ?? Infinity) * 1000 - Date.now();
    this.#renewAt = token === this.#config.token ? Date.now() + left - Math.min(RENEW_BEFORE_MS, left / 3) : Infinity;
  }

  async #renew() {
    this.#renewAt = Date.now() + RENEW_AGAIN_MS;
    const old = this.#token;
    const config = await loadConfig().catch(() => this.#config);
    // another person's token is for a page opened anew
    if (!config.token || config.token === old || old !== this.#token || claimsOf(config.token).sub !== claimsOf(old).sub) return;
    this.#config = config;
    this.#use(config.token);
    this.#api.renew(config.token);
    this.#feed.renew(config.token);
  }

  // Once with a new token where the service hands one out; otherwise the person is asked.
  async #unauthorised() {
    this.#page.connection("connecting");
    const refused = this.#token;
    try {
      sessionStorage.removeItem(TOKEN_KEY);
      this.#config = await loadConfig();
    } catch {
      // the question below says what to do
    }
    const fresh = this.#config.token === refused ? null : this.#config.token;
    await this.#connect(fresh, "Your access token has expired or is not accepted here. Paste a new one to go on.");
  }

  #arrived(images) {
    this.#store.apply(images);
    for (const card of this.#cards.values()) card.loaded();
    this.#tallySoon();
  }

  #changed(number, view, before) {
    if (!this.#cards.has(number)) {
      this.#scenes.ensure(number);
      this.#drawCards();
    }
    this.#cards.get(number).update(view);
    this.#viewer.refresh();
    this.#tallySoon();
    const { latest } = view;
    const known = before.latest?.record_id === latest?.record_id;
    if (!known || before.latest.status === latest.status) return;
    if (latest.status === "completed") this.#page.say(`Scene ${number}: the picture is ready`);
    if (latest.status === "failed") this.#page.say(`Scene ${number} failed: ${failed(latest)}`);
  }

  #drawCards() {
    const on = {
      request: (number) => this.#request(number),
      open: (number) => this.#viewer.open(number),
      save: (number, words) => this.#rewrite(number, () => this.#scenes.save(number, words)),
      restore: (number) => this.#rewrite(number, () => this.#scenes.restore(number)),
    };
    const list = byId("scenes");
    const numbers = this.#scenes.numbers;
    for (const [number, card] of this.#cards) {
      if (numbers.includes(number)) continue;
      card.element.remove();
      this.#cards.delete(number);
    }
    numbers.forEach((number, at) => {
      if (!this.#cards.has(number)) {
        const card = new Card(this.#scenes.get(number), on);
        card.words(this.#scenes.get(number), this.#scenes.choices);
        if (byId("chip").dataset.state !== "connecting") card.loaded();
        else card.draw();
        this.#cards.set(number, card);
        list.insertBefore(card.element, list.children[at] ?? null);
      }
    });
    this.#tallySoon();
  }

  #rewrite(number, change) {
    change();
    // an added scene that has a picture keeps its card
    if (this.#store.scene(number).latest) this.#scenes.ensure(number);
    this.#drawCards();
    this.#cards.get(number)?.words(this.#scenes.get(number), this.#scenes.choices);
  }

  async #request(number) {
    const card = this.#cards.get(number);
    if (!this.#api || card.phase === "busy" || card.phase === "loading") return;
    if (!card.scene.description) {
      card.edit();
      return;
    }
    card.sending(true);
    this.#tallySoon();
    try {
      const accepted = await this.#api.requestScene(this.#chapterId, number, this.#scenes.body(number));
      this.#store.expect(number, accepted);
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      card.refuse(error);
      if (error.status === 401) this.#feed.stop();
      if (error.status === 401) await this.#unauthorised();
      else this.#page.say(`Scene ${number}: ${error.message}`);
    } finally {
      card.sending(false);
      this.#tallySoon();
    }
  }

  async #requestAll() {
    const free = [...this.#cards].filter(([, card]) => card.phase !== "busy" && card.scene.description).map(([number]) => number).sort((a, b) => a - b);
    const missing = free.filter((number) => !this.#store.scene(number).current);
    const wanted = missing.length ? missing : free;
    this.#page.say(`${wanted.length} ${wanted.length === 1 ? "picture" : "pictures"} requested`);
    const next = async () => {
      while (wanted.length) await this.#request(wanted.shift());
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
  }

  #pictures() {
    return [...this.#cards]
      .map(([number, card]) => ({ number, ...card.scene, url: this.#store.scene(number).current?.image_url }))
      .filter(({ url }) => isWebAddress(url))
      .sort((a, b) => a.number - b.number);
  }

  #tallySoon() {
    if (this.#tallying) return;
    this.#tallying = requestAnimationFrame(() => {
      this.#tallying = 0;
      this.#tally();
    });
  }

  #tally() {
    const words = { loading: "loading", empty: "no picture yet", failed: "failed", ready: "picture ready" };
    const scenes = [...this.#cards].sort(([a], [b]) => a - b).map(([number, card]) => {
      const { latest, current } = this.#store.scene(number);
      const busy = card.phase === "busy";
      const busyWords = busy && latest ? underWay(latest, Date.now()).headline : "requested";
      return { number, phase: card.phase, picture: Boolean(current), can: Boolean(card.scene.description), words: busy ? busyWords : words[card.phase] };
    });
    this.#page.tally(scenes);
  }

  #tick() {
    const now = Date.now();
    if (now >= this.#renewAt) this.#renew();
    for (const card of this.#cards.values()) if (card.phase === "busy") card.draw(now);
  }
}

await new Studio().start();
