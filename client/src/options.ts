import type { CurrentImage, FieldError, ImageStatus, ServerFrame } from "./contract.js";

/**
 * The user's JWT, or null when nobody is signed in. Called once at a time; `refresh` says that the one given before is
 * about to end or was refused, so one from a cache will not do.
 */
export type GetToken = (why: { refresh: boolean }) => string | null | Promise<string | null>;

export interface Options {
  /** Where the notifier is reached, e.g. `https://push.example.org`, or under a path: `https://example.org/images`. */
  pushUrl: string;
  /** Where the producer is reached, likewise; left out when a proxy joins both. */
  apiUrl?: string;
  getToken: GetToken;
  /** What to fall to while no socket gets through: `fallback` of `@scenewire/client/fallback` (SSE, then long polls). */
  fallback?: Fallback;
  /** `tabs()` of `@scenewire/client/tabs`: all tabs of a user share one socket. */
  share?: Share;
  /** How long a subscription and its socket outlive the last who watched; 1,000 ms. */
  lingerMs?: number;
  /** Another WebSocket or fetch than the platform's. */
  WebSocket?: typeof WebSocket;
  fetch?: typeof fetch;
}

/**
 * `live`: changes are pushed. `polling`: they are asked for. `connecting`: no line is up yet. `offline`: none gets
 * through; it is tried again by itself, unless `error` says that it was refused.
 */
export type LineStatus = "live" | "polling" | "connecting" | "offline";
export type Transport = "websocket" | "sse" | "poll";

export interface LineState {
  readonly status: LineStatus;
  readonly transport: Transport | null;
  readonly error: ScenewireError | null;
}

/** What is watched, as a `subscribe` frame names it; `id` is the client's own word for it. */
export interface Scope {
  readonly id: string;
  readonly chapter_id?: string;
  readonly record_id?: string;
  readonly mine?: true;
}

export interface Watched {
  readonly scope: Scope;
  /** What is known of it: up to here. */
  readonly cursor?: string;
}

/** The way to the service that a client talks through: it mends itself until it is closed. */
export interface Line {
  /** Watch one more of the scopes; one that is watched already is sent whole again. */
  watch(scope: Scope): void;
  unwatch(scope: Scope): void;
  /** Look whether it is still there; where it is not, try at once, even after a refusal. */
  hurry(): void;
  close(): void;
}

export interface LineEvents {
  /** All that is watched. */
  scopes(): Iterable<Watched>;
  /** `from` is whoever brought it: another does not go on with what this one has begun. */
  frame(frame: ServerFrame, from?: object): void;
  state(state: LineState): void;
}

/** One socket, from its opening to its loss. */
export interface Carrier {
  /** All of it, or what has changed since the cursor. */
  watch(scope: Scope, cursor?: string): void;
  unwatch(id: string): void;
  authorise(token: string): void;
  /** Find out soon whether it is still there. */
  check(): void;
  close(): void;
}

export interface CarrierEvents {
  /** Scopes may be given. */
  open(): void;
  /** The service has answered, and says when the token ends. */
  up(expiresAt: string): void;
  frame(frame: ServerFrame): void;
  /** Lost, or never there; told once, and not after `close()`. `retryAfterMs` is the service's own wish. */
  down(code: number, retryAfterMs?: number): void;
}

/** An authorised call of the service; a path without host goes on from `pushUrl`. Throws `ScenewireError`. */
export type Call = (url: string, init?: RequestInit & { timeoutMs?: number }) => Promise<Response>;

/** Opens another line than the socket's, with patience of its own. */
export type Fallback = (call: Call, events: LineEvents) => Line;

export type Share = (open: (events: LineEvents) => Line, events: LineEvents, options: Options, user: User) => Line;

/** Who is signed in: the `sub` of the token. */
export type User = () => Promise<string>;

/** What went wrong, with a sentence for people in `message` and a stable word for programs in `code`. */
export class ScenewireError extends Error {
  override readonly name = "ScenewireError";
  declare readonly code: string;
  /** The HTTP status or the socket's close code; 0 where the service was not reached. */
  declare readonly status: number;
  /** With 422, what is wrong with which field. */
  declare readonly fields: readonly FieldError[];
  declare readonly retryAfterMs: number | undefined;

  constructor(message: string, code: string, status = 0, fields: readonly FieldError[] = [], retryAfterMs?: number) {
    super(message);
    Object.assign(this, { code, status, fields, retryAfterMs });
  }
}

export interface SceneView {
  readonly sceneNumber: number;
  /** The newest request for the scene. */
  readonly latest: ImageStatus;
  /** The newest completed picture: shown until there is a newer one, whatever becomes of `latest`. */
  readonly current: ImageStatus | null;
}

interface View {
  /** The first answer has come: what is not here does not exist. */
  readonly ready: boolean;
  /** There is something, and all of it has come to its end. */
  readonly done: boolean;
  readonly error: ScenewireError | null;
  /** Everything known, oldest request first. */
  readonly images: readonly ImageStatus[];
}

export interface ChapterView extends View {
  /** By scene number. Images that belong to no scene, such as characters, are in `images` alone. */
  readonly scenes: readonly SceneView[];
}

export interface ImageView extends View {
  readonly image: ImageStatus | null;
}

export type MineView = View;

/** Something watched. Nothing is sent before somebody listens; a view stays the same object until it changes. */
export interface Watch<V> {
  get(): V;
  /** Calls at each change, and at once when there is something already. Returns what ends it. */
  subscribe(listener: (view: V) => void): () => void;
  /** Asks for all of it again: places in the queue, estimates and costs are worked out when they are read. */
  refresh(): void;
  /** Ends what was begun with the listener given to `watchChapter` and its like. */
  close(): void;
}

export type { CurrentImage, ImageStatus };
