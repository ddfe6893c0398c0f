// Talks HTTP: the page's own files, requests to the producer, polls of the notifier. The token travels in a header only.

const REQUEST_TIMEOUT_MS = 15_000;
const SENDS = 3;

/** What a person is told when a call did not work; `code` and `fields` come from problem+json. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", fields = [], retryAfterMs = null } = {}) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
    this.fields = fields;
    this.retryAfterMs = retryAfterMs;
  }

  /** Nothing is known to be wrong with the request itself: the same one may be sent again. */
  get passing() {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

/** A random key; `crypto.randomUUID` exists only on https and localhost. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function newUuid() {
  const hex = newKey();
  const variant = ((parseInt(hex[16], 16) & 3) | 8).toString(16);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

/** `{sub, exp}` as the token states them (`exp` in seconds), unchecked; `{}` for one that cannot be read. */
export function claimsOf(token) {
  try {
    const { sub, exp } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    return { sub, exp: Number.isFinite(exp) ? exp : undefined };
  } catch {
    return {};
  }
}

async function beside(name) {
  const response = await fetch(new URL(name, import.meta.url), { cache: "no-store" });
  if (!response.ok) throw new ApiError(`The page's file ${name} answered ${response.status}.`, { status: response.status });
  return response.json();
}

/** `{api_url, push_url, chapter_id, token?}`; addresses come back without a trailing slash. */
export async function loadConfig() {
  const config = await beside("config.json");
  const trim = (url) => String(url || location.origin).replace(/\/+$/, "");
  return { ...config, api_url: trim(config.api_url), push_url: trim(config.push_url) };
}

export const loadChapter = () => beside("chapter.json");

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

async function problemOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // not problem+json: a proxy's page, perhaps
  }
  const after = Number(response.headers.get("Retry-After"));
  const fallback = response.status >= 500 ? "The service is busy. Try again in a moment." : `The service answered ${response.status}.`;
  return new ApiError(body.detail || body.title || fallback, {
    status: response.status,
    code: body.code || "",
    fields: Array.isArray(body.errors) ? body.errors : [],
    retryAfterMs: Number.isFinite(after) && after > 0 ? after * 1000 : null,
  });
}

async function call(url, options, timeoutMs = REQUEST_TIMEOUT_MS) {
  const timeout = AbortSignal.timeout(timeoutMs);
  const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  let response;
  try {
    response = await fetch(url, { cache: "no-store", credentials: "omit", ...options, signal });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The service cannot be reached. Check your connection, then try again.");
  }
  if (response.status === 304 || response.ok) return response;
  throw await problemOf(response);
}

export class Api {
  #config;
  #token;

  constructor(config, token) {
    this.#config = config;
    this.#token = token;
  }

  renew(token) {
    this.#token = token;
  }

  get #bearer() {
    return { Authorization: `Bearer ${this.#token}` };
  }

  /** Asks for one scene's picture. Sent up to three times under one Idempotency-Key, so that it is made once. */
  async requestScene(chapterId, sceneNumber, body) {
    const url = `${this.#config.api_url}/chapters/${chapterId}/images/scenes/${sceneNumber}`;
    const headers = { ...this.#bearer, "Content-Type": "application/json", "Idempotency-Key": newKey() };
    for (let sent = 1; ; sent += 1) {
      try {
        const response = await call(url, { method: "POST", headers, body: JSON.stringify(body) });
        return await response.json();
      } catch (error) {
        if (!error.passing || sent === SENDS) throw error;
        await wait(Math.min(error.retryAfterMs ?? 400 * 2 ** sent, 10_000));
      }
    }
  }

  /**
   * `latest` and `current` of each scene. With `waitSeconds` the service may hold the answer until something is newer
   * than `cursor`; `held` says whether it did. `images` is null when nothing changed since `etag`.
   */
  async chapterImages(chapterId, { cursor = null, etag = null, waitSeconds = 0, signal } = {}) {
    const url = new URL(`${this.#config.push_url}/chapters/${chapterId}/images`);
    if (cursor) url.searchParams.set("cursor", cursor);
    const headers = { ...this.#bearer };
    if (etag) headers["If-None-Match"] = etag;
    if (waitSeconds) headers.Prefer = `wait=${waitSeconds}`;
    const response = await call(url, { headers, signal }, REQUEST_TIMEOUT_MS + waitSeconds * 1000);
    const held = response.headers.has("Preference-Applied");
    if (response.status === 304) return { images: null, cursor, etag, held };
    const body = await response.json();
    return { images: body.images, cursor: body.cursor, etag: response.headers.get("ETag"), held };
  }
}
