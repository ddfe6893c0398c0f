import type { ImageGenerationQueuedResponse, SceneImageRequest, ServerFrame } from "./contract.js";
import { callerOf, type RequestOptions, requestScene } from "./http.js";
import { openLine } from "./line.js";
import {
  type Call,
  type ChapterView,
  type ImageView,
  type Line,
  type LineEvents,
  type LineState,
  type MineView,
  type Options,
  ScenewireError,
  type Scope,
  type Watch,
} from "./options.js";
import { claims, tokensOf } from "./tokens.js";
import { type AnyView, concerns, EMPTY, keep, type Records, viewOf } from "./views.js";

/** Quicker than this, or before it was sent, nothing arrives: the clocks differ. */
const PLAUSIBLE_LAG_MS = 2_000;

export interface State extends LineState {
  /** How long the last change took from the service's books to here, in ms; null before the first. */
  readonly lag: number | null;
}

/** What `connect` gives: nothing is opened before something is watched. */
export interface Scenewire {
  readonly state: State;
  /** Calls at each change of `state`. Returns what ends it. */
  onState(listener: (state: State) => void): () => void;
  /** A chapter's scenes, and all that comes. With a listener it begins at once. */
  watchChapter(chapterId: string, listener?: (view: ChapterView) => void): Watch<ChapterView>;
  /** One image generation, until it has come to its end. */
  watchImage(recordId: string, listener?: (view: ImageView) => void): Watch<ImageView>;
  /** All that is the user's; over the socket alone. */
  watchMine(listener?: (view: MineView) => void): Watch<MineView>;
  /** Asks for a scene's picture. Throws `ScenewireError`. */
  requestScene(
    chapterId: string,
    sceneNumber: number,
    body: SceneImageRequest,
    options?: RequestOptions,
  ): Promise<ImageGenerationQueuedResponse>;
  /** An authorised call of the service; a path without host goes on from `pushUrl`. Throws `ScenewireError`. */
  call: Call;
  /** Tries at once, even after a refusal: somebody has signed in, or asked for it. */
  reconnect(): void;
  /** Ends everything. */
  close(): void;
}

interface Topic {
  scope: Scope;
  records: Records;
  error: ScenewireError | null;
  /** Made when it is asked for. */
  view: AnyView;
  stale?: boolean;
  cursor?: string;
  /** Who has sent its snapshot: before that, a cursor would skip what was not seen yet. */
  from?: object;
  over?: boolean;
  listeners: Set<(view: AnyView) => void>;
  linger?: ReturnType<typeof setTimeout>;
}

/** One that throws is the page's mistake, and must not keep the others from hearing. */
function callAll<T>(listeners: Set<(told: T) => void>, told: T): void {
  for (const listener of [...listeners]) {
    try {
      listener(told);
    } catch (error) {
      (globalThis.reportError ?? console.error)(error);
    }
  }
}

export function connect(given: Options): Scenewire {
  const trimmed = (url: string) => url.replace(/\/+$/, "");
  const options = { ...given, pushUrl: trimmed(given.pushUrl), apiUrl: trimmed(given.apiUrl ?? given.pushUrl) };
  const { lingerMs = 1_000, share } = options;
  const tokens = tokensOf(options.getToken);
  const call = callerOf(options, tokens);
  const topics = new Map<string, Topic>();
  const stateListeners = new Set<(state: State) => void>();
  let state: State = { status: "connecting", transport: null, error: null, lag: null };
  let line: Line | null = null;
  let quickest = Number.POSITIVE_INFINITY;

  function change(next: Partial<State>): void {
    const changed = (Object.keys(next) as (keyof State)[]).some((key) => next[key] !== state[key]);
    if (!changed) return;
    state = { ...state, ...next };
    callAll(stateListeners, state);
  }

  function lagOf(updatedAt: string): number {
    const took = Date.now() - Date.parse(updatedAt);
    quickest = Math.min(quickest, took);
    return took - (quickest < 0 || quickest > PLAUSIBLE_LAG_MS ? quickest : 0);
  }

  function take(frame: ServerFrame, from?: object): void {
    if (frame.type === "status") {
      const { image, cursor } = frame;
      let news = false;
      for (const topic of topics.values()) {
        if (!concerns(topic.scope, image) && !topic.records.has(image.record_id)) continue;
        // what is "mine" lies in many partitions: it goes by cursor frames of its own
        if (topic.from === from && !topic.scope.mine) topic.cursor = cursor;
        if (keep(topic.records, image, false)) {
          news = true;
          tell(topic);
        }
      }
      if (news && image.updated_at) change({ lag: lagOf(image.updated_at) });
      return;
    }
    const topic = "id" in frame && topics.get(frame.id);
    if (!topic) return;
    if (frame.type === "error") topic.error = new ScenewireError(frame.message, frame.code);
    else if (frame.type === "end") return;
    else {
      topic.cursor = frame.cursor || topic.cursor;
      if (frame.type === "cursor") return;
      topic.from = from;
      const changed = frame.images.filter((image) => keep(topic.records, image, true)).length;
      if (!changed && shown(topic).ready && !topic.error) return;
      topic.error = null;
    }
    tell(topic);
  }

  function tell(topic: Topic): void {
    topic.stale = true;
    const { scope, listeners } = topic;
    // one record that has come to its end is let go of
    topic.over = !!scope.record_id && shown(topic).done;
    if (topic.over) line?.unwatch(scope);
    callAll(listeners, shown(topic));
  }

  function shown(topic: Topic): AnyView {
    const { scope, records, error, view, stale } = topic;
    topic.stale = false;
    if (stale) topic.view = viewOf(scope, records, error, view);
    return topic.view;
  }

  const events: LineEvents = {
    scopes: () => [...topics.values()].filter(({ over }) => !over),
    frame: take,
    state: change,
  };

  function opened(): Line {
    const open = (told: LineEvents) => openLine(options, tokens, call, told);
    const user = async () => claims(await tokens.get()).sub ?? "";
    line ??= share ? share(open, events, options, user) : open(events);
    return line;
  }

  function watch(scope: Scope, listener?: (view: AnyView) => void): Watch<AnyView> {
    const { id } = scope;

    function subscribe(told: (view: AnyView) => void): () => void {
      let topic = topics.get(id);
      if (!topic) {
        topic = { scope, records: new Map(), error: null, view: EMPTY, listeners: new Set() };
        topics.set(id, topic);
        opened().watch(scope);
      }
      const { listeners } = topic;
      clearTimeout(topic.linger);
      // one function may be given twice
      const mine = (view: AnyView) => told(view);
      listeners.add(mine);
      if (shown(topic).ready) mine(topic.view);
      return () => {
        if (!listeners.delete(mine) || listeners.size) return;
        topic.linger = setTimeout(() => {
          topics.delete(id);
          line?.unwatch(scope);
          if (!topics.size) end();
        }, lingerMs);
      };
    }

    const stop = listener && subscribe(listener);
    return {
      get() {
        const topic = topics.get(id);
        return topic ? shown(topic) : EMPTY;
      },
      subscribe,
      refresh: () => topics.has(id) && line?.watch(scope),
      close: () => stop?.(),
    };
  }

  function end(): void {
    line?.close();
    line = null;
    change({ status: "connecting", transport: null, error: null });
  }

  return {
    get state() {
      return state;
    },
    onState(listener) {
      stateListeners.add(listener);
      return () => stateListeners.delete(listener);
    },
    watchChapter: (id, listener) => watch({ id: `c:${id}`, chapter_id: id }, listener),
    watchImage: (id, listener) => watch({ id: `r:${id}`, record_id: id }, listener),
    watchMine: (listener) => watch({ id: "mine", mine: true }, listener),
    requestScene: (...wanted) => requestScene(call, options, ...wanted),
    call,
    reconnect: () => line?.hurry(),
    close() {
      for (const topic of topics.values()) clearTimeout(topic.linger);
      topics.clear();
      end();
    },
  };
}
