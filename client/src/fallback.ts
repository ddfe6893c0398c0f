import {
  type Call,
  type ChapterImages,
  type Fallback,
  type ImageStatus,
  type Line,
  type LineEvents,
  ScenewireError,
  type Scope,
  type ServerFrame,
  type Transport,
} from "@scenewire/client";
import { messagesOf } from "./messages.js";

const FIRST_MS = 1_000;
const MOST_MS = 20_000;
/** Many proxies end a request that is silent for longer. */
const WAIT_S = 25;
const ANSWER_MS = 15_000;
/** An answer that brings nothing and was not held either is not followed up sooner than this. */
const EMPTY_PAUSE_MS = 2_500;
const HELD_MS = 1_000;
/** The service sends a snapshot at once: whoever gets none sits behind a proxy that keeps streams to itself. */
const FIRST_EVENT_MS = 5_000;
/** It sends a comment every 20 s. */
const SILENCE_MS = 45_000;
/** A stream that is ended sooner than this, so often in a row, does not get through either. */
const BRIEF_MS = 5_000;
const BRIEF_STREAMS = 3;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Server-sent events, and long polls where streams do not get through. */
export const fallback: Fallback = (call, events) => openFallback(call, events, true);

/** Long polls alone. */
export const longPoll: Fallback = (call, events) => openFallback(call, events, false);

interface Follower {
  readonly scope: Scope;
  readonly ended: AbortController;
  /** What it gets through on; null when it does not. */
  transport: Transport | null;
  cursor?: string;
  etag?: string;
  failures: number;
  /** It was refused, and asks no more. */
  over?: boolean;
  wake?: () => void;
}

const pathOf = ({ chapter_id, record_id }: Scope): string =>
  chapter_id ? `chapters/${chapter_id}/images` : `images/${record_id}`;

async function listOf(answer: Response): Promise<Pick<ChapterImages, "images" | "cursor">> {
  const body: ChapterImages | ImageStatus = await answer.json();
  return "images" in body ? body : { images: [body], cursor: "" };
}

function openFallback(call: Call, events: LineEvents, streams: boolean): Line {
  const followers = new Map<string, Follower>();
  let brief = 0;
  let error: ScenewireError | null = null;

  function tell(): void {
    const ways = Array.from(followers.values(), ({ transport, failures }) => transport ?? (failures ? null : "new"));
    const transport = ways.includes("sse") ? "sse" : ways.includes("poll") ? "poll" : null;
    const status = transport
      ? transport === "sse"
        ? "live"
        : "polling"
      : ways.includes("new")
        ? "connecting"
        : "offline";
    events.state({ status, transport, error: transport ? null : error });
  }

  function through(follower: Follower, transport: Transport): void {
    const before = follower.transport;
    follower.failures = 0;
    follower.transport = transport;
    if (before !== transport) tell();
  }

  function take(follower: Follower, frame: ServerFrame): void {
    if ("cursor" in frame && frame.cursor) follower.cursor = frame.cursor;
    events.frame(frame, follower);
  }

  function pause(follower: Follower, ms: number): Promise<void> {
    return new Promise((done) => {
      const timer = setTimeout(done, ms);
      follower.wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }

  /** One stream, from its opening to its end; how long to wait for the next one, undefined when none gets through. */
  async function stream(follower: Follower): Promise<number | undefined> {
    const { scope, cursor, ended } = follower;
    const opened = Date.now();
    const silent = new AbortController();
    const stop = () => silent.abort();
    let timer = setTimeout(stop, FIRST_EVENT_MS);
    let heard = false;
    let asked: number | undefined;
    ended.signal.addEventListener("abort", stop);
    try {
      const headers: Record<string, string> = { Accept: "text/event-stream" };
      if (cursor) headers["Last-Event-ID"] = cursor;
      const path = `chapters/${scope.chapter_id}/events`;
      const answer = await call(path, { headers, signal: silent.signal, timeoutMs: LONGEST_TIMER_MS });
      for await (const data of messagesOf(answer)) {
        clearTimeout(timer);
        timer = setTimeout(stop, SILENCE_MS);
        if (!data) continue;
        heard = true;
        through(follower, "sse");
        // what a socket would be sent, but for the name of the subscription
        const frame: ServerFrame = JSON.parse(data);
        if (frame.type === "bye") asked = frame.retry_after_ms;
        else take(follower, "id" in frame ? { ...frame, id: scope.id } : frame);
      }
    } catch (reason) {
      if (ended.signal.aborted) return 0;
      // not reached, a refusal of the user, or a restart: no other way would fare better
      const { status, code } = reason as Partial<ScenewireError>;
      if (status === 0 || status === 401 || (status === 503 && code !== "too_many_streams")) throw reason;
    } finally {
      clearTimeout(timer);
      ended.signal.removeEventListener("abort", stop);
      stop();
    }
    follower.transport = null;
    tell();
    brief = asked === undefined && Date.now() - opened < BRIEF_MS ? brief + 1 : 0;
    return heard && brief < BRIEF_STREAMS ? (asked ?? Math.random() * FIRST_MS) : undefined;
  }

  /** One answer; the first at once, to see that there are any. */
  async function poll(follower: Follower): Promise<void> {
    const { scope, cursor, etag, ended } = follower;
    const asked = Date.now();
    const held = follower.transport === "poll" && (etag || cursor);
    const headers: Record<string, string> = held ? { Prefer: `wait=${WAIT_S}` } : {};
    if (etag) headers["If-None-Match"] = etag;
    const query = scope.chapter_id && cursor ? `?cursor=${encodeURIComponent(cursor)}` : "";
    const answer = await call(pathOf(scope) + query, {
      headers,
      signal: ended.signal,
      timeoutMs: ANSWER_MS + (held ? WAIT_S * 1000 : 0),
    });
    through(follower, "poll");
    let news = 0;
    if (answer.status !== 304) {
      const { images, cursor: reached } = await listOf(answer);
      if (ended.signal.aborted) return;
      if (scope.record_id) follower.etag = answer.headers.get("ETag") ?? undefined;
      news = images.length;
      take(follower, { type: "snapshot", id: scope.id, images, cursor: reached, resumed: null });
    }
    if (held && !news && Date.now() - asked < HELD_MS) await pause(follower, EMPTY_PAUSE_MS);
  }

  /** All of it once more, beside the stream or the poll, which goes on from its own cursor. */
  async function refresh(follower: Follower): Promise<void> {
    const { scope, ended } = follower;
    try {
      const { images } = await listOf(await call(pathOf(scope), { signal: ended.signal }));
      if (!ended.signal.aborted) take(follower, { type: "snapshot", id: scope.id, images, cursor: "", resumed: null });
    } catch {
      // the follower itself finds out what is wrong
    }
  }

  async function follow(follower: Follower): Promise<void> {
    const { scope, ended } = follower;
    while (!ended.signal.aborted) {
      let wait = 0;
      try {
        if (streams && scope.chapter_id) {
          const next = await stream(follower);
          streams &&= next !== undefined;
          wait = next ?? 0;
        } else await poll(follower);
      } catch (reason) {
        if (ended.signal.aborted) return;
        const refused = reason instanceof ScenewireError ? reason : new ScenewireError(String(reason), "failed");
        follower.over = refused.status === 401 || refused.status === 403 || refused.status === 404;
        if (refused.status === 404) {
          // this one is not theirs, or not there; the line itself works
          through(follower, "poll");
          events.frame({ type: "error", id: scope.id, code: refused.code, message: refused.message }, follower);
          return;
        }
        follower.transport = null;
        follower.failures += 1;
        error = refused;
        tell();
        // the socket, which is tried all the while, finds out when it has changed
        if (follower.over) return;
        wait = refused.retryAfterMs ?? Math.random() * Math.min(MOST_MS, FIRST_MS * 2 ** follower.failures);
      }
      if (wait && !ended.signal.aborted) await pause(follower, wait);
    }
  }

  function begin(scope: Scope, cursor?: string): void {
    end(scope.id);
    // what is "mine" is pushed over sockets alone
    if (scope.mine) return;
    const follower: Follower = { scope, ended: new AbortController(), transport: null, cursor, failures: 0 };
    followers.set(scope.id, follower);
    follow(follower);
  }

  function end(id: string): void {
    const follower = followers.get(id);
    followers.delete(id);
    follower?.ended.abort();
    follower?.wake?.();
  }

  for (const { scope, cursor } of events.scopes()) begin(scope, cursor);
  queueMicrotask(tell);

  return {
    watch(scope) {
      const follower = followers.get(scope.id);
      if (follower && !follower.over) refresh(follower);
      else begin(scope);
    },
    unwatch: ({ id }) => end(id),
    hurry() {
      for (const { wake } of followers.values()) wake?.();
    },
    close() {
      for (const id of [...followers.keys()]) end(id);
    },
  };
}
