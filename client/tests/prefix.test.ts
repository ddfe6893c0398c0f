// The service behind a gateway that has it under a path.

import { afterEach, beforeEach, expect, test } from "vitest";
import { sceneImages } from "../src/compat.js";
import { fallback, longPoll } from "../src/fallback.js";
import { connect, type Options, type Scenewire, ScenewireError } from "../src/index.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;

beforeEach(async () => {
  service = await new Service("/scene/images").start();
});

afterEach(async () => {
  client.close();
  await service.stop();
});

function open(options: Partial<Options> = {}): Scenewire {
  client = connect({ pushUrl: `${service.url}/`, getToken: () => token(), ...options });
  return client;
}

test.each([
  ["websocket", undefined],
  ["sse", fallback],
  ["poll", longPoll],
] as const)("a chapter comes by %s", async (transport, way) => {
  if (transport !== "websocket") service.mode = "refuse";
  const watch = open({ fallback: way }).watchChapter(CHAPTER, () => {});
  await until(() => client.state.transport === transport);
  service.push(completed(1, 1));
  await until(() => watch.get().done);
});

test("one image is polled for", async () => {
  service.mode = "refuse";
  service.push(completed(1, 1));
  const watch = open({ fallback }).watchImage(image(1, 1).record_id, () => {});
  await until(() => watch.get().done);
});

test("a picture is asked for, at the producer's own path too", async () => {
  await open().requestScene(CHAPTER, 2, { scene_description: "A table." });
  await open({ pushUrl: "http://127.0.0.1:9", apiUrl: service.url }).requestScene(CHAPTER, 3, {
    scene_description: "A table.",
  });
  expect(service.requests.map(({ url }) => url)).toEqual(
    [2, 3].map((scene) => `/chapters/${CHAPTER}/images/scenes/${scene}`),
  );
});

test.each(["chapters/x/images", "/chapters/x/images"])("call(%j) goes on from it", async (path) => {
  await open().call(`${path}?limit=1`);
  expect(service.requests[0]?.url).toBe("/chapters/x/images?limit=1");
});

test.each(["/http://127.0.0.1:9/x", "//127.0.0.1:9/x", "/a:b/c"])(
  "call(%j) leaves it for nowhere else",
  async (path) => {
    // the token would go along
    await open().call(path);
    expect(service.requests[0]?.url).toBe(path.replace(/^\/+/, "/"));
  },
);

test("a whole address is called as it is", async () => {
  const elsewhere = await new Service().start();
  await open().call(`${elsewhere.url}/me/usage`);
  expect(elsewhere.requests[0]?.url).toBe("/me/usage");
  expect(service.requests).toEqual([]);
  await elsewhere.stop();
});

test("the old functions find a scene's status", async () => {
  await sceneImages(open()).getSceneImageStatus(CHAPTER, 1);
  expect(service.requests[0]?.url).toBe(`/chapters/${CHAPTER}/images/scenes/1/status`);
});

test("what is not under it is not called", async () => {
  open({ pushUrl: service.url.replace("/scene/images", "") });
  await expect(client.call("/chapters/x/images")).rejects.toThrow(ScenewireError);
});
