// @vitest-environment happy-dom

import { QueryClient, QueryClientProvider, QueryObserver, useQuery } from "@tanstack/react-query";
import { act, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { type ChapterView, connect, type Scenewire } from "../src/index.js";
import { chapterQuery, imageQuery, sceneQuery } from "../src/query.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;
let queries: QueryClient;

beforeEach(async () => {
  service = await new Service().start();
  const ws = WebSocket as unknown as typeof globalThis.WebSocket;
  client = connect({ pushUrl: service.url, getToken: () => token(), lingerMs: 20, WebSocket: ws });
  queries = new QueryClient({ defaultOptions: { queries: { retry: false } } });
});

afterEach(async () => {
  queries.clear();
  client.close();
  await service.stop();
  vi.unstubAllGlobals();
});

test("a query is answered by the snapshot, and kept current by what is pushed", async () => {
  service.push(image(1, 1));
  const observer = new QueryObserver(queries, sceneQuery(client, CHAPTER, 1));
  const stop = observer.subscribe(() => {});
  await until(() => observer.getCurrentResult().data?.latest.version === 1);
  service.push(completed(1, 2));
  await until(() => observer.getCurrentResult().data?.current);
  expect(queries.getQueryData<ChapterView>(chapterQuery(client, CHAPTER).queryKey)?.done).toBe(true);
  expect(service.peer.subscribed().length).toBe(1);
  stop();
});

test("who stops looking lets go of it, and who looks again follows it anew", async () => {
  const stop = new QueryObserver(queries, chapterQuery(client, CHAPTER)).subscribe(() => {});
  await until(() => queries.getQueryData(["scenewire", "chapter", CHAPTER]));
  stop();
  await until(() => service.open.length === 0);
  service.miss(image(1, 1));
  const again = new QueryObserver(queries, chapterQuery(client, CHAPTER));
  const stopAgain = again.subscribe(() => {});
  await until(() => again.getCurrentResult().data?.scenes.length === 1);
  expect(service.handshakes).toBe(2);
  stopAgain();
});

test("a refetch asks for what is worked out when it is read", async () => {
  service.push(image(1, 1));
  const observer = new QueryObserver(queries, chapterQuery(client, CHAPTER));
  const stop = observer.subscribe(() => {});
  await until(() => observer.getCurrentResult().data);
  service.log.length = 0;
  service.miss(image(1, 1, { eta_seconds: 9 }));
  await observer.refetch();
  await until(() => observer.getCurrentResult().data?.scenes[0]?.latest.eta_seconds === 9);
  stop();
});

test("errors are the query's", async () => {
  const missing = new QueryObserver(queries, imageQuery(client, image(1, 1).record_id));
  const stop = missing.subscribe(() => {});
  await until(() => missing.getCurrentResult().error);
  expect(missing.getCurrentResult().error).toMatchObject({ code: "not_found" });
  stop();
  service.accepts = () => false;
  const refused = connect({ pushUrl: service.url, getToken: () => token(), lingerMs: 20 });
  const chapter = new QueryObserver(new QueryClient({ defaultOptions: { queries: { retry: false } } }), {
    ...chapterQuery(refused, CHAPTER),
  });
  const stopChapter = chapter.subscribe(() => {});
  await until(() => chapter.getCurrentResult().error);
  expect(chapter.getCurrentResult().error).toMatchObject({ status: 4401 });
  stopChapter();
  refused.close();
});

test("StrictMode opens one socket, with one subscription", async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  service.push(image(1, 1));
  const Version = () => <p>{useQuery(sceneQuery(client, CHAPTER, 1)).data?.latest.version}</p>;
  const place = document.createElement("div");
  const root = createRoot(place);
  await act(() =>
    root.render(
      <StrictMode>
        <QueryClientProvider client={queries}>
          <Version />
          <Version />
        </QueryClientProvider>
      </StrictMode>,
    ),
  );
  await act(() => until(() => place.textContent === "11"));
  service.push(image(1, 2));
  await act(() => until(() => place.textContent === "22"));
  expect(service.handshakes).toBe(1);
  expect(service.peer.subscribed().length).toBe(1);
  await act(() => root.unmount());
});
