"use client";

import {
  type ChapterView,
  chapterViewOf,
  type ImageGenerationQueuedResponse,
  type ImageStatus,
  type ImageView,
  type RequestOptions,
  type SceneImageRequest,
  type Scenewire,
  ScenewireError,
  type State,
  type Watch,
} from "@scenewire/client";
import {
  createContext,
  createElement,
  type ReactElement,
  type ReactNode,
  useCallback,
  useContext,
  useMemo,
  useState,
  useSyncExternalStore,
} from "react";

/** A hidden tab paints no frames, but its title may still say how far things are. */
const HIDDEN_FRAME_MS = 250;

const Context = createContext<Scenewire | null>(null);

/** Hands what `connect` gave to the hooks below it. */
export function ScenewireProvider(props: { client: Scenewire; children?: ReactNode }): ReactElement {
  return createElement(Context.Provider, { value: props.client }, props.children);
}

export function useScenewire(): Scenewire {
  const client = useContext(Context);
  if (!client) throw new Error("Wrap the page in <ScenewireProvider client={connect({...})}>.");
  return client;
}

const waiting = new Set<() => void>();
let frame: (() => void) | null = null;

/** All that changed since the last frame is drawn in the next one, in one pass. */
function nextFrame(draw: () => void): void {
  waiting.add(draw);
  if (frame) return;
  const flush = () => {
    frame?.();
    frame = null;
    const all = [...waiting];
    waiting.clear();
    for (const each of all) each();
  };
  const painted = requestAnimationFrame(flush);
  const timer = setTimeout(flush, HIDDEN_FRAME_MS);
  frame = () => {
    cancelAnimationFrame(painted);
    clearTimeout(timer);
  };
}

/** Draws at most once a frame, whatever arrives meanwhile. */
function calm(listen: (changed: () => void) => () => void): (draw: () => void) => () => void {
  return (draw) => {
    const stop = listen(() => nextFrame(draw));
    return () => {
      waiting.delete(draw);
      stop();
    };
  };
}

export interface Connection extends State {
  /** Tries at once, even after a refusal. */
  reconnect(): void;
}

const SERVED: State = { status: "connecting", transport: null, error: null, lag: null };

/** How things are with the line: for a badge. */
export function useConnection(): Connection {
  const client = useScenewire();
  const subscribe = useMemo(() => calm((changed) => client.onState(changed)), [client]);
  const state = useSyncExternalStore(
    subscribe,
    () => client.state,
    () => SERVED,
  );
  return { ...state, reconnect: client.reconnect };
}

/** What every hook tells beside its view. `lag` is that of the time of drawing. */
export interface Told {
  readonly status: State["status"];
  readonly lag: number | null;
  /** Asks for all of it again: places, estimates and costs are worked out when they are read. */
  refresh(): void;
}

interface View {
  readonly ready: boolean;
}

function useWatch<V extends View, S>(watch: Watch<V> | null, before: V, select: (view: V) => S): S & Told {
  const client = useScenewire();
  const subscribe = useMemo(
    () =>
      calm((changed) => {
        const stopState = client.onState(changed);
        const stop = watch?.subscribe(changed);
        return () => {
          stopState();
          stop?.();
        };
      }),
    [client, watch],
  );
  const view = () => {
    const known = watch?.get();
    return select(known?.ready ? known : before);
  };
  const selected = useSyncExternalStore(subscribe, view, () => select(before));
  const status = useSyncExternalStore(
    subscribe,
    () => client.state.status,
    () => SERVED.status,
  );
  const refresh = useCallback(() => watch?.refresh(), [watch]);
  return { ...selected, status, lag: client.state.lag, refresh };
}

export interface ChapterOptions {
  /** The chapter's images as a server has read them: shown until the first answer is here. */
  initial?: readonly ImageStatus[];
}

const NONE: readonly ImageStatus[] = [];

function useChapterWatch(chapterId: string | null | undefined, initial = NONE) {
  const client = useScenewire();
  const watch = useMemo(() => (chapterId ? client.watchChapter(chapterId) : null), [client, chapterId]);
  const before = useMemo(() => ({ ...chapterViewOf(initial), ready: initial.length > 0 }), [initial]);
  return { client, watch, before };
}

export interface Chapter extends ChapterView, Told {
  /** Asks for a scene's picture. Throws `ScenewireError`. */
  request(
    sceneNumber: number,
    body: SceneImageRequest,
    options?: RequestOptions,
  ): Promise<ImageGenerationQueuedResponse>;
}

/** A chapter's scenes as they are and as they change; nothing while there is no `chapterId`. */
export function useChapter(chapterId: string | null | undefined, options: ChapterOptions = {}): Chapter {
  const { client, watch, before } = useChapterWatch(chapterId, options.initial);
  const view = useWatch(watch, before, (whole) => whole);
  const request = useCallback<Chapter["request"]>(
    (sceneNumber, body, wanted) => client.requestScene(chapterId ?? "", sceneNumber, body, wanted),
    [client, chapterId],
  );
  return { ...view, request };
}

export interface Scene extends Told {
  /** The first answer has come: without `latest` the scene was never requested. */
  readonly ready: boolean;
  /** The newest request for the scene. */
  readonly latest: ImageStatus | null;
  /** The newest completed picture: to be shown, with `latest`'s progress over it. */
  readonly current: ImageStatus | null;
  /** Asks for a picture. Never throws: what went wrong is in `error`. */
  request(body: SceneImageRequest, options?: RequestOptions): Promise<ImageGenerationQueuedResponse | undefined>;
  /** From the call until its record is seen: keep the button down. */
  readonly requesting: boolean;
  /** Why the last request was not accepted, or else why the chapter cannot be watched. */
  readonly error: ScenewireError | null;
}

interface Asked {
  sending: boolean;
  recordId: string | null;
  error: ScenewireError | null;
}

const UNASKED: Asked = { sending: false, recordId: null, error: null };

/** One scene of a chapter; all scenes of a chapter share one subscription. */
export function useScene(
  chapterId: string | null | undefined,
  sceneNumber: number,
  options: ChapterOptions = {},
): Scene {
  const { client, watch, before } = useChapterWatch(chapterId, options.initial);
  const [asked, setAsked] = useState(UNASKED);
  const select = useMemo(() => sceneOf(sceneNumber), [sceneNumber]);
  const view = useWatch(watch, before, select);
  const request = useCallback<Scene["request"]>(
    async (body, wanted) => {
      setAsked({ ...UNASKED, sending: true });
      try {
        const accepted = await client.requestScene(chapterId ?? "", sceneNumber, body, wanted);
        setAsked({ ...UNASKED, recordId: accepted.record_id });
        return accepted;
      } catch (reason) {
        const error = reason instanceof ScenewireError ? reason : new ScenewireError(String(reason), "failed");
        setAsked({ ...UNASKED, error });
        return undefined;
      }
    },
    [client, chapterId, sceneNumber],
  );
  const { sending, recordId } = asked;
  const unseen = recordId !== null && !watch?.get().images.some((image) => image.record_id === recordId);
  return { ...view, request, requesting: sending || unseen, error: asked.error ?? view.error };
}

type Seen = Pick<Scene, "ready" | "latest" | "current" | "error">;

/** The same object for as long as the scene is the same. */
function sceneOf(sceneNumber: number): (view: ChapterView) => Seen {
  let last: Seen = { ready: false, latest: null, current: null, error: null };
  return ({ ready, scenes, error }) => {
    const { latest = null, current = null } = scenes.find((scene) => scene.sceneNumber === sceneNumber) ?? {};
    const next: Seen = { ready, latest, current, error };
    if ((Object.keys(next) as (keyof Seen)[]).some((key) => next[key] !== last[key])) last = next;
    return last;
  };
}

const NO_IMAGE: ImageView = { ready: false, done: false, error: null, images: [], image: null };

/** One image generation until it has come to its end; nothing while there is no `recordId`. */
export function useImage(recordId: string | null | undefined): ImageView & Told {
  const client = useScenewire();
  const watch = useMemo(() => (recordId ? client.watchImage(recordId) : null), [client, recordId]);
  return useWatch(watch, NO_IMAGE, (view) => view);
}
