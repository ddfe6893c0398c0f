// @vitest-environment happy-dom

import { act, StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { type ImageStatusResponse, type SceneImages, sceneImages, useSceneImages } from "../src/compat.js";
import { connect, type Scenewire } from "../src/index.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;

beforeEach(async () => {
  service = await new Service().start();
  const ws = WebSocket as unknown as typeof globalThis.WebSocket;
  client = connect({ pushUrl: service.url, getToken: () => token(), lingerMs: 20, WebSocket: ws, fetch: answer });
});

afterEach(async () => {
  client.close();
  await service.stop();
  vi.unstubAllGlobals();
});

/** The status of a scene, as the notifier gives it. */
const answer: typeof fetch = async (input, init) => {
  const { pathname } = new URL(String(input));
  expect(new Headers(init?.headers).get("Authorization")).toMatch(/^Bearer /);
  if (init?.method === "POST") {
    return Response.json({ record_id: image(2, 1).record_id, status: "queued", scene_number: 2 }, { status: 202 });
  }
  expect(pathname).toBe(`/chapters/${CHAPTER}/images/scenes/2/status`);
  return Response.json({ ...image(2, 3, { status: "cancelled", error_message: "Cancelled." }), current: null });
};

test("a picture is asked for and followed to its end, as ever", async () => {
  const told: [number, ImageStatusResponse["status"]][] = [];
  const reload = vi.fn();
  const images = sceneImages(client, { onStatus: (scene, { status }) => told.push([scene, status]), reload });
  const accepted = await images.generateSceneImage(CHAPTER, 2, { scene_description: "A table." });
  expect(accepted).toMatchObject({ status: "queued", record_id: image(2, 1).record_id });
  service.push(image(2, 1));
  images.startPollingSceneImage(2, accepted.record_id);
  images.startPollingSceneImage(2, accepted.record_id);
  await until(() => told.length === 1);
  expect(service.peer.subscribed().length).toBe(1);
  service.push(completed(2, 2));
  await until(() => reload.mock.calls.length === 1);
  expect(told).toEqual([
    [2, "pending"],
    [2, "completed"],
  ]);
  expect(reload).toHaveBeenCalledWith(
    2,
    expect.objectContaining({ status: "completed", image_url: expect.any(String) }),
  );
  await until(() => service.open.length === 0);
});

test("what is at its end already is told once", async () => {
  service.push(completed(2, 5));
  const reload = vi.fn();
  client.watchImage(image(2, 1).record_id, () => {});
  await until(() => client.watchImage(image(2, 1).record_id).get().done);
  sceneImages(client, { reload }).startPollingSceneImage(2, image(2, 1).record_id);
  expect(reload).toHaveBeenCalledTimes(1);
});

test("a status has the old shape, and knows no word that the old clients do not", async () => {
  const status = await sceneImages(client).getSceneImageStatus(CHAPTER, 2);
  const { record_id, scene_number, image_url, retry_count, error_message } = status;
  expect({ record_id, scene_number, image_url, retry_count, error_message }).toEqual({
    record_id: image(2, 1).record_id,
    scene_number: 2,
    image_url: null,
    retry_count: 0,
    error_message: "Cancelled.",
  });
  expect(status.status).toBe("failed");
});

test("as a hook it calls the newest handlers, and lets go with its component", async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  let images!: Omit<SceneImages, "stop">;
  const told: string[] = [];
  const Page = ({ name }: { name: string }) => {
    images = useSceneImages(client, { onStatus: (scene) => told.push(`${name} ${scene}`) });
    return null;
  };
  const root = createRoot(document.createElement("div"));
  const show = (name: string) =>
    act(() =>
      root.render(
        <StrictMode>
          <Page name={name} />
        </StrictMode>,
      ),
    );
  await show("a");
  const before = images;
  service.push(image(2, 1));
  images.startPollingSceneImage(2, image(2, 1).record_id);
  await until(() => told.length === 1);
  await show("b");
  expect(images).toBe(before);
  service.push(image(2, 2));
  await until(() => told.length === 2);
  expect(told).toEqual(["a 2", "b 2"]);
  await act(() => root.unmount());
  await until(() => service.open.length === 0);
});
