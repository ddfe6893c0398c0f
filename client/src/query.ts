import type { ChapterView, ImageView, SceneView, Scenewire, Watch } from "@scenewire/client";
import type { QueryClient, QueryFunctionContext } from "@tanstack/react-query";

/** Changes of one frame are written together. */
const FRAME_MS = 16;
const LINGER_MS = 1_000;
const UNSEEN = "Nobody looks at it any more.";

interface Pushed<V, K extends readonly unknown[]> {
  queryKey: K;
  queryFn: (context: QueryFunctionContext<K>) => Promise<V>;
  /** What is pushed does not grow stale while somebody looks at it. */
  staleTime: number;
  refetchOnWindowFocus: false;
  refetchOnReconnect: false;
}

/**
 * A chapter for `useQuery` and its like, kept current by the socket: `useQuery(chapterQuery(scenewire, chapterId))`.
 * It is followed for as long as some component observes it.
 */
export function chapterQuery(
  client: Scenewire,
  chapterId: string,
): Pushed<ChapterView, readonly ["scenewire", "chapter", string]> {
  return pushed(client, ["scenewire", "chapter", chapterId] as const, client.watchChapter(chapterId));
}

/** One scene of a chapter, or null when it was never requested; all of them are one query. */
export function sceneQuery(client: Scenewire, chapterId: string, sceneNumber: number) {
  const select = ({ scenes }: ChapterView): SceneView | null =>
    scenes.find((scene) => scene.sceneNumber === sceneNumber) ?? null;
  return { ...chapterQuery(client, chapterId), select };
}

/** One image generation. */
export function imageQuery(
  client: Scenewire,
  recordId: string,
): Pushed<ImageView, readonly ["scenewire", "image", string]> {
  return pushed(client, ["scenewire", "image", recordId] as const, client.watchImage(recordId));
}

type View = Pick<ChapterView, "ready" | "error">;

/** By query client and key: what is followed. */
const followed = new WeakMap<QueryClient, Map<string, Promise<unknown>>>();

function pushed<V extends View, K extends readonly unknown[]>(
  client: Scenewire,
  queryKey: K,
  watch: Watch<V>,
): Pushed<V, K> {
  async function queryFn({ client: queries, queryKey: key }: QueryFunctionContext<K>): Promise<V> {
    const all = followed.get(queries) ?? new Map<string, Promise<V>>();
    followed.set(queries, all);
    const name = JSON.stringify(key);
    const before = all.get(name);
    if (before) {
      // asked for again while it is followed
      await before;
      watch.refresh();
      return watch.get();
    }
    const first = follow(client, watch, queries, key, () => all.delete(name));
    all.set(name, first);
    return first;
  }
  const fresh = {
    staleTime: Number.POSITIVE_INFINITY,
    refetchOnWindowFocus: false,
    refetchOnReconnect: false,
  } as const;
  return { queryKey, queryFn, ...fresh };
}

function follow<V extends View>(
  client: Scenewire,
  watch: Watch<V>,
  queries: QueryClient,
  queryKey: readonly unknown[],
  ended: () => void,
): Promise<V> {
  return new Promise((resolve, reject) => {
    const cache = queries.getQueryCache();
    const query = cache.find({ queryKey, exact: true });
    const stops: (() => void)[] = [];
    let first = true;
    let over = false;
    let frame: ReturnType<typeof setTimeout> | undefined;

    function stop(reason: unknown): void {
      over = true;
      clearTimeout(frame);
      for (const each of stops) each();
      ended();
      // whoever looks at it next follows it anew
      queries.invalidateQueries({ queryKey, exact: true, refetchType: "none" });
      reject(reason);
    }

    function take(view: V): void {
      if (over) return;
      if (view.error) stop(view.error);
      else if (first) {
        first = false;
        resolve(view);
      } else {
        frame ??= setTimeout(() => {
          frame = undefined;
          queries.setQueryData(queryKey, watch.get());
        }, FRAME_MS);
      }
    }

    function look(): void {
      const { error, status } = client.state;
      if (first && !over && error && status === "offline") stop(error);
    }

    stops.push(
      client.onState(look),
      cache.subscribe((event) => {
        if (event.query !== query || over) return;
        const unseen = () => !over && !query?.getObserversCount();
        if (event.type === "removed") stop(new Error(UNSEEN));
        // StrictMode looks away for a moment
        else if (event.type === "observerRemoved") setTimeout(() => unseen() && stop(new Error(UNSEEN)), LINGER_MS);
      }),
    );
    const stopWatch = watch.subscribe(take);
    stops.push(stopWatch);
    if (over) stopWatch();
    else look();
  });
}
