// Tabs, as far as Node has what they need: BroadcastChannel and Web Locks. tests/browser shows the rest.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ChapterView, connect, type Options, type Scenewire } from "../src/index.js";
import { tabs } from "../src/tabs.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

const OTHER = "0b6f5dd0-5f0c-4f52-9d7e-6b1c2a3d4e5f";
let service: Service;
const opened: Scenewire[] = [];

beforeEach(async () => {
  service = await new Service().start();
});

afterEach(async () => {
  vi.useRealTimers();
  for (const client of opened.splice(0)) client.close();
  await service.stop();
});

function tab(chapterId = CHAPTER, options: Partial<Options> = {}) {
  const client = connect({ pushUrl: service.url, getToken: () => token(), lingerMs: 20, share: tabs(), ...options });
  opened.push(client);
  const watch = client.watchChapter(chapterId, () => {});
  return { client, watch, view: (): ChapterView => watch.get() };
}

const live = (...those: { client: Scenewire; view(): ChapterView }[]) =>
  until(() => those.every(({ client, view }) => view().ready && client.state.status === "live"), "all live");

test("all tabs share one socket, and each subscription", async () => {
  service.push(image(1, 1));
  const first = tab();
  await live(first);
  const [second, third] = [tab(), tab(OTHER)];
  await live(second, third);
  expect(service.handshakes).toBe(1);
  expect([...service.peer.scopes.keys()].sort()).toEqual([`c:${OTHER}`, `c:${CHAPTER}`].sort());
  expect(second.view().scenes[0]?.latest.version).toBe(1);
  service.push(image(1, 2));
  await until(() => [first, second].every(({ view }) => view().scenes[0]?.latest.version === 2));
  expect(third.view().scenes).toEqual([]);
});

test("another tab takes the place of the one that had the socket, and nothing is lost", async () => {
  const first = tab();
  await live(first);
  const [second, third] = [tab(), tab()];
  await live(second, third);
  first.client.close();
  service.push(image(1, 1));
  await until(() => service.peers.length === 2);
  await until(() => [second, third].every(({ view }) => view().scenes[0]?.latest.version === 1));
  await live(second, third);
  expect(service.open.length).toBe(1);
  service.push(completed(1, 2));
  await until(() => [second, third].every(({ view }) => view().done));
});

test("what only a closed tab watched is let go of", async () => {
  const first = tab();
  const second = tab(OTHER);
  await live(first, second);
  await until(() => service.peer.scopes.size === 2);
  second.client.close();
  await until(() => service.peer.scopes.size === 1);
  expect([...service.peer.scopes.keys()]).toEqual([`c:${CHAPTER}`]);
});

test("the line's losses are healed for all, from the cursor", async () => {
  const first = tab();
  await live(first);
  const second = tab();
  await live(second);
  service.push(image(1, 1));
  await until(() => second.view().scenes.length === 1);
  service.peer.socket.terminate();
  await until(() => second.client.state.status === "connecting");
  service.miss(image(1, 2));
  await until(() => [first, second].every(({ view }) => view().scenes[0]?.latest.version === 2));
  expect(service.peer.subscribed()).toMatchObject([{ cursor: "at-1" }]);
});

test("a refusal is told in every tab, and one of them may try again", async () => {
  const first = tab();
  await live(first);
  const second = tab();
  await live(second);
  service.peer.socket.close(4403);
  await until(() => [first, second].every(({ client }) => client.state.error?.code === "refused_4403"));
  expect(second.client.state.status).toBe("offline");
  second.client.reconnect();
  await live(first, second);
});

test("a tab that sleeps over the socket is relieved of it by one that is looked at", async () => {
  const channels: BroadcastChannel[] = [];
  let asleep = false;
  class Channel extends BroadcastChannel {
    constructor(name: string) {
      super(name);
      channels.push(this);
    }
    override postMessage(said: unknown): void {
      if (!asleep || this !== channels[0]) super.postMessage(said);
    }
  }
  vi.stubGlobal("BroadcastChannel", Channel);
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
  const first = tab();
  await live(first);
  const second = tab();
  await live(second);
  asleep = true;
  for (let look = 0; look < 9 && service.peers.length < 2; look += 1) {
    await vi.advanceTimersByTimeAsync(5_000);
    for (let turn = 0; turn < 20; turn += 1) await new Promise((again) => setImmediate(again));
  }
  expect(service.peers.length).toBe(2);
  await until(() => service.peers[0]!.socket.readyState === 3, "the end of the first tab's socket");
  asleep = false;
  await until(() => service.peer.scopes.size === 1);
  service.push(image(1, 1));
  await until(() => second.view().scenes.length === 1);
  await until(() => first.view().scenes.length === 1);
  vi.unstubAllGlobals();
});

test("different users share nothing", async () => {
  const first = tab();
  const second = tab(CHAPTER, { getToken: () => token(3600, { sub: "11111111-8b86-4d01-b42d-00cf4fc964ff" }) });
  await live(first, second);
  expect(service.open.length).toBe(2);
});

describe("without what it needs", () => {
  test("each tab has its own socket", async () => {
    vi.stubGlobal("BroadcastChannel", undefined);
    const [first, second] = [tab(), tab()];
    await live(first, second);
    expect(service.open.length).toBe(2);
    vi.unstubAllGlobals();
  });

  test("nobody signed in is said, and signing in heals it", async () => {
    let given: string | null = null;
    const first = tab(CHAPTER, { getToken: () => given });
    await until(() => first.client.state.error?.code === "signed_out");
    expect(first.client.state.status).toBe("offline");
    given = token();
    first.client.reconnect();
    await live(first);
  });
});
