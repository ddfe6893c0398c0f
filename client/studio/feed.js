// One stream of images from two lines: the socket, and polling for as long as the socket is down.

import { Socket } from "./socket.js";

const POLL_EVERY_MS = 2_500;
const POLL_WAIT_S = 20;
const HELD_MS = 1_000;
const PLACES_EVERY_MS = 8_000;

/**
 * States: `connecting`, `live`, `reconnecting` (the socket is lost, no poll has answered yet), `polling`, `offline`
 * (neither line works). Calls `onState(state)`, `onImages(images)`, `onUnauthorised()`.
 */
export class Feed {
  #api;
  #chapterId;
  #on;
  #socket;
  #polling = null;
  #wake = null;
  #places = 0;

  constructor({ api, config, token, chapterId, onState, onImages, onUnauthorised, isWaiting }) {
    this.#api = api;
    this.#chapterId = chapterId;
    this.#on = { state: onState, images: onImages, unauthorised: onUnauthorised, isWaiting };
    this.#socket = new Socket({
      pushUrl: config.push_url,
      token,
      chapterId,
      onImages,
      onUp: () => this.#up(),
      onDown: () => this.#down(),
      onUnauthorised: () => this.#refuse(),
      // e.g. too many sockets for this user: polling goes on, "Reconnect" and a return to the page try again
      onRefused: () => this.#down(),
    });
  }

  start() {
    this.#on.state("connecting");
    this.#socket.start();
    addEventListener("online", this.#again);
    addEventListener("offline", this.#gone);
    document.addEventListener("visibilitychange", this.#seen);
    this.#places = setInterval(() => this.#refreshPlaces(), PLACES_EVERY_MS);
  }

  stop() {
    this.#socket.stop();
    this.#stopPolling();
    clearInterval(this.#places);
    removeEventListener("online", this.#again);
    removeEventListener("offline", this.#gone);
    document.removeEventListener("visibilitychange", this.#seen);
  }

  renew(token) {
    this.#socket.renew(token);
  }

  reconnect() {
    this.#socket.now();
    this.#wake?.();
  }

  #again = () => this.reconnect();

  #gone = () => {
    if (this.#polling) this.#on.state("offline");
  };

  #seen = () => {
    if (!document.hidden) this.reconnect();
  };

  #up() {
    this.#stopPolling();
    this.#on.state("live");
  }

  #down() {
    if (this.#polling) return;
    this.#on.state("reconnecting");
    this.#polling = new AbortController();
    this.#poll(this.#polling.signal);
  }

  #refuse() {
    this.stop();
    this.#on.unauthorised();
  }

  #stopPolling() {
    this.#polling?.abort();
    this.#polling = null;
    this.#wake?.();
  }

  async #poll(signal) {
    // The first poll asks for everything and never waits: it shows that this line works.
    let known = { cursor: null, etag: null };
    let waitSeconds = 0;
    while (!signal.aborted) {
      let pauseMs = POLL_EVERY_MS;
      const asked = Date.now();
      try {
        const answer = await this.#api.chapterImages(this.#chapterId, { ...known, waitSeconds, signal });
        if (signal.aborted) return;
        if (answer.images) this.#on.images(answer.images);
        this.#on.state("polling");
        known = { cursor: answer.cursor, etag: answer.etag };
        // an answer that was held, or that says something new, is followed up soon; an empty one at once would spin
        if (answer.held && (answer.images || Date.now() - asked > HELD_MS)) pauseMs = 250;
        waitSeconds = POLL_WAIT_S;
      } catch (error) {
        if (signal.aborted) return;
        if (error.status === 401) return this.#refuse();
        this.#on.state("offline");
        known = { cursor: null, etag: null };
        waitSeconds = 0;
        pauseMs = error.retryAfterMs ?? POLL_EVERY_MS;
      }
      await this.#pause(pauseMs);
    }
  }

  #pause(ms) {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  // Places in the queue are worked out when read, so no frame carries them: ask now and then while somebody waits.
  async #refreshPlaces() {
    if (this.#polling || document.hidden || !this.#on.isWaiting()) return;
    try {
      const { images } = await this.#api.chapterImages(this.#chapterId);
      if (images) this.#on.images(images);
    } catch {
      // the socket carries what matters
    }
  }
}
