// The push line: one WebSocket for one chapter, opened again by itself whenever it is lost.

const SUBPROTOCOL = "scenewire.v1+json";
const BEARER_PREFIX = "base64url.bearer.scenewire.";
const SUBSCRIPTION = "chapter";
const CONNECT_TIMEOUT_MS = 5_000;
const PING_SLACK_MS = 6_000;
const DELAY_FIRST_MS = 500;
const DELAY_MOST_MS = 20_000;
const STEADY_MS = 5_000;
const UNAUTHORISED = 4401;
const NOT_UTF8 = 1007;
const TOO_BIG = 1009;

const base64url = (text) => btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const refused = (code) => code === NOT_UTF8 || code === TOO_BIG || (code >= 4400 && code < 4500);

/**
 * Calls `onUp()` when a snapshot is in, `onImages(images, cursor)` for every snapshot and change, `onDown()` at each
 * loss, `onUnauthorised()` at 4401 and `onRefused(code)` when trying again unchanged is of no use.
 */
export class Socket {
  #options;
  #socket = null;
  #timer = 0;
  #watchdog = 0;
  #silenceMs = CONNECT_TIMEOUT_MS;
  #failures = 0;
  #upSince = 0;
  #cursor = null;
  #byeDelayMs = null;
  #running = false;

  constructor(options) {
    this.#options = options;
  }

  start() {
    this.#running = true;
    this.#open();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#drop();
  }

  /** Tries at once instead of waiting out the delay; a line that is up or being opened is left alone. */
  now() {
    if (!this.#running || this.#socket) return;
    clearTimeout(this.#timer);
    this.#failures = 0;
    this.#open();
  }

  /** Goes on with a newer token of the same person, on the line that is up. */
  renew(token) {
    this.#options.token = token;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#authenticate();
  }

  #authenticate() {
    this.#socket.send(JSON.stringify({ type: "auth", token: this.#options.token }));
  }

  #open() {
    const { pushUrl, token } = this.#options;
    const url = `${pushUrl.replace(/^http/, "ws")}/ws`;
    let socket;
    try {
      socket = new WebSocket(url, [SUBPROTOCOL, BEARER_PREFIX + base64url(token)]);
    } catch {
      this.#running = false;
      this.#options.onRefused(0);
      return;
    }
    this.#socket = socket;
    this.#silenceMs = CONNECT_TIMEOUT_MS;
    this.#watch();
    socket.onopen = () => {
      // renewed while the line was being opened
      if (token !== this.#options.token) this.#authenticate();
      const subscribe = { type: "subscribe", id: SUBSCRIPTION, chapter_id: this.#options.chapterId };
      if (this.#cursor) subscribe.cursor = this.#cursor;
      socket.send(JSON.stringify(subscribe));
    };
    socket.onmessage = (event) => {
      if (socket !== this.#socket) return;
      this.#watch();
      this.#read(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this.#socket) this.#lost(event.code);
    };
  }

  #read(data) {
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame.type === "welcome") {
      this.#silenceMs = (Number(frame.ping_interval_ms) || 15_000) + PING_SLACK_MS;
      this.#watch();
    } else if (frame.type === "snapshot" && frame.id === SUBSCRIPTION) {
      this.#cursor = frame.cursor;
      this.#upSince = Date.now();
      this.#options.onImages(frame.images);
      this.#options.onUp();
    } else if (frame.type === "status") {
      this.#cursor = frame.cursor;
      this.#options.onImages([frame.image]);
    } else if (frame.type === "bye") {
      this.#byeDelayMs = Number(frame.retry_after_ms) || null;
    } else if (frame.type === "error" && frame.id === SUBSCRIPTION) {
      this.#lost(4400);
    }
  }

  // A browser cannot ping: a line on which even the server's pings stay away is dead.
  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#lost(0), this.#silenceMs);
  }

  #drop() {
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #lost(code) {
    this.#drop();
    if (!this.#running) return;
    const steady = this.#upSince && Date.now() - this.#upSince > STEADY_MS;
    this.#failures = steady ? 1 : this.#failures + 1;
    this.#upSince = 0;
    this.#options.onDown();
    if (code === UNAUTHORISED) {
      this.#running = false;
      this.#options.onUnauthorised();
    } else if (refused(code)) {
      this.#options.onRefused(code);
    } else {
      const most = Math.min(DELAY_MOST_MS, DELAY_FIRST_MS * 2 ** (this.#failures - 1));
      const delay = this.#byeDelayMs ?? Math.max(100, Math.random() * most);
      this.#byeDelayMs = null;
      this.#timer = setTimeout(() => this.#open(), delay);
    }
  }
}
