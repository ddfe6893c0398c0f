import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type ChapterView, connect, type Options, type Scenewire, ScenewireError } from "../src/index.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;
const clients: Scenewire[] = [];

beforeEach(async () => {
  service = await new Service().start();
});

afterEach(async () => {
  for (const each of clients.splice(0)) each.close();
  await service.stop();
  vi.unstubAllGlobals();
});

function open(options: Partial<Options> = {}): Scenewire {
  client = connect({ pushUrl: service.url, getToken: () => token(), lingerMs: 50, ...options });
  clients.push(client);
  return client;
}

function chapter(): { views: ChapterView[]; last: () => ChapterView } {
  const views: ChapterView[] = [];
  const watch = client.watchChapter(CHAPTER, (view) => views.push(view));
  return { views, last: watch.get };
}

const live = () => until(() => client.state.status === "live", "live");

describe("a chapter", () => {
  test("is what the snapshot says, then what changes", async () => {
    service.push(image(1, 1));
    open();
    const { last } = chapter();
    expect(last()).toMatchObject({ ready: false, scenes: [] });
    await until(() => last().ready);
    expect(last().scenes.map(({ sceneNumber, latest }) => [sceneNumber, latest.version])).toEqual([[1, 1]]);
    service.push(completed(1, 2));
    service.push(image(2, 1));
    await until(() => last().scenes.length === 2);
    expect(last().scenes[0]).toMatchObject({ latest: { version: 2 }, current: { version: 2 } });
    expect(last().done).toBe(false);
    service.push(completed(2, 2));
    await until(() => last().done);
    expect(client.state).toMatchObject({ status: "live", transport: "websocket", error: null });
    expect(client.state.lag).toBeGreaterThanOrEqual(0);
    expect(client.state.lag).toBeLessThan(2000);
  });

  test("shows the newest picture while a newer request waits or fails", async () => {
    open();
    const { last } = chapter();
    const again = { record_id: "00000009-0000-4000-8000-000000000000", created_at: "2026-11-26T10:00:00.5Z" };
    service.push(completed(1, 3));
    service.push(image(1, 1, again));
    await until(() => last().scenes[0]?.latest.version === 1);
    expect(last().scenes[0]).toMatchObject({ latest: again, current: { image_url: "https://pictures.test/1-3.png" } });
    service.push(image(1, 2, { ...again, status: "failed", error_message: "No." }));
    await until(() => last().done);
    expect(last().scenes[0]?.current?.image_url).toBe("https://pictures.test/1-3.png");
  });

  test("leaves what has not changed the same object", async () => {
    service.push(image(1, 1));
    service.push(image(2, 1));
    open();
    const { last } = chapter();
    await until(() => last().ready);
    const [first, second] = last().scenes;
    service.push(image(2, 2));
    await until(() => last().scenes[1]?.latest.version === 2);
    expect(last().scenes[0]).toBe(first);
    expect(last().scenes[1]).not.toBe(second);
    expect(last()).toBe(last());
  });

  test("hears nothing of a version that it has seen", async () => {
    open();
    const { views, last } = chapter();
    service.push(image(1, 5));
    await until(() => last().scenes.length === 1);
    const heard = views.length;
    service.push(image(1, 5));
    service.push(image(1, 4));
    service.push(image(2, 1));
    await until(() => last().scenes.length === 2);
    expect(views.length).toBe(heard + 1);
    expect(last().scenes[0]?.latest.version).toBe(5);
  });

  test("holds an estimate that was read until the next one", async () => {
    service.push(image(1, 1, { eta_seconds: 40, queue_position: 3 }));
    open();
    const { last } = chapter();
    await until(() => last().ready);
    service.push(image(1, 2, { stage: "generating", status: "in_progress" }));
    await until(() => last().scenes[0]?.latest.version === 2);
    expect(last().scenes[0]?.latest.eta_seconds).toBe(40);
    service.log.length = 0;
    service.miss(image(1, 2, { stage: "generating", status: "in_progress", eta_seconds: 7 }));
    client.watchChapter(CHAPTER).refresh();
    await until(() => last().scenes[0]?.latest.eta_seconds === 7);
    service.push(completed(1, 3));
    await until(() => last().done);
    expect(last().scenes[0]?.latest.eta_seconds).toBeNull();
  });
});

describe("the token", () => {
  test("travels in the handshake, never in the address", async () => {
    const given = token();
    open({ getToken: () => given });
    chapter();
    await until(() => service.peers[0]?.subscribed().length === 1);
    expect(service.peer.token).toBe(given);
    expect(service.peer.subscribed()[0]).toMatchObject({ chapter_id: CHAPTER });
    expect(service.peer.address).toBe("/ws");
  });

  test("is asked for again once when it is refused, and then no more", async () => {
    service.accepts = () => false;
    const getToken = vi.fn(({ refresh }) => token(3600, { refresh }));
    open({ getToken });
    chapter();
    await until(() => client.state.error);
    expect(client.state).toMatchObject({ status: "offline", error: { code: "refused_4401", status: 4401 } });
    expect(getToken.mock.calls).toEqual([[{ refresh: false }], [{ refresh: true }]]);
    expect(service.handshakes).toBe(2);
    service.accepts = () => true;
    client.reconnect();
    await live();
    expect(client.state.error).toBeNull();
  });

  test("of nobody ends it until somebody has signed in", async () => {
    let given: string | null = null;
    open({ getToken: () => given });
    chapter();
    await until(() => client.state.error);
    expect(client.state).toMatchObject({ status: "offline", error: { code: "signed_out" } });
    expect(service.handshakes).toBe(0);
    given = token();
    client.reconnect();
    await live();
  });

  test("that cannot be had just now is asked for again", async () => {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      if (asked === 1) throw new Error("the sign-in service is away");
      return token();
    };
    open({ getToken });
    chapter();
    await live();
    expect(asked).toBe(2);
  });

  test("is asked for once by all who need it at once", async () => {
    const getToken = vi.fn(async () => token());
    open({ getToken });
    chapter();
    await Promise.all([1, 2, 3].map((scene) => client.requestScene(CHAPTER, scene, { scene_description: "A table." })));
    await live();
    expect(getToken).toHaveBeenCalledTimes(1);
  });
});

describe("a lost line", () => {
  test("is taken up where it was, from the cursor", async () => {
    service.push(image(1, 1));
    open();
    const { last } = chapter();
    await until(() => last().ready);
    service.push(image(1, 2));
    await until(() => last().scenes[0]?.latest.version === 2);
    service.peer.socket.terminate();
    service.miss(completed(1, 3));
    await until(() => last().done);
    expect(service.peers.length).toBe(2);
    expect(service.peer.subscribed()).toMatchObject([{ chapter_id: CHAPTER, cursor: "at-2" }]);
  });

  test("goes on for what is mine from where a cursor frame said, not from a status", async () => {
    open();
    const watch = client.watchMine(() => {});
    await until(() => watch.get().ready);
    service.push(image(1, 1));
    await until(() => watch.get().images.length === 1);
    service.peer.socket.terminate();
    await until(() => service.peers.length === 2 && service.peer.subscribed().length === 1);
    expect(service.peer.subscribed()[0]).toMatchObject({ mine: true, cursor: "at-0" });
    service.peer.send({ type: "cursor", id: "mine", cursor: "at-1" });
    service.push(image(1, 2));
    await until(() => watch.get().images[0]?.version === 2);
    service.peer.socket.terminate();
    await until(() => service.peers.length === 3 && service.peer.subscribed().length === 1);
    expect(service.peer.subscribed()[0]).toMatchObject({ cursor: "at-1" });
  });

  test("keeps no cursor from before its own snapshot", async () => {
    open();
    client.watchMine(() => {});
    await live();
    const { scopes } = service.peer;
    await until(() => scopes.has("mine"));
    // the chapter's snapshot is still on its way when the same change comes for what is mine
    service.mode = "silent";
    chapter();
    await until(() => service.peer.subscribed().length === 2);
    service.push(image(1, 1));
    await until(() => client.state.lag !== null);
    service.mode = "welcome";
    service.peer.socket.terminate();
    await until(() => service.peers.length === 2 && service.peer.subscribed().length === 2);
    const resubscribed = service.peer.subscribed().find((frame) => "chapter_id" in frame);
    expect(resubscribed).not.toHaveProperty("cursor");
  });

  test("comes back when the service asked for it, and not before", async () => {
    open();
    chapter();
    await live();
    service.peer.send({ type: "bye", code: 1012, retry_after_ms: 300 });
    service.peer.socket.close(1012);
    await until(() => client.state.status === "connecting");
    const gone = performance.now();
    await live();
    expect(performance.now() - gone).toBeGreaterThan(280);
    expect(service.handshakes).toBe(2);
  });

  test.each([4400, 4403, 4408, 4413, 4429, 1007, 1009])("is given up after %d", async (code) => {
    open();
    chapter();
    await live();
    service.peer.socket.close(code);
    await until(() => client.state.error);
    expect(client.state).toMatchObject({ status: "offline", error: { code: `refused_${code}`, status: code } });
    expect(service.handshakes).toBe(1);
  });

  test.each([1001, 1006, 1011, 1012, 4503, 4508])("is tried again after %d", async (code) => {
    open();
    chapter();
    await live();
    if (code === 1006) service.peer.socket.terminate();
    else service.peer.socket.close(code);
    await until(() => service.peers.length === 2, "another socket");
    await live();
  });
});

describe("one image", () => {
  test("is let go of when it has come to its end", async () => {
    service.push(image(1, 1));
    open();
    const watch = client.watchImage(image(1, 1).record_id, () => {});
    await until(() => watch.get().image?.version === 1);
    service.push(completed(1, 2));
    await until(() => service.peer.scopes.size === 0);
    expect(watch.get()).toMatchObject({ done: true, image: { status: "completed" } });
    service.peer.socket.terminate();
    await until(() => service.peers.length === 2);
    await live();
    expect(service.peer.subscribed()).toEqual([]);
  });

  test("of somebody else is an error, and the line stays", async () => {
    open();
    const watch = client.watchImage("0000000f-0000-4000-8000-000000000000", () => {});
    await until(() => watch.get().error);
    expect(watch.get()).toMatchObject({ ready: true, image: null, error: { code: "not_found" } });
    expect(client.state.status).toBe("live");
  });
});

describe("subscriptions", () => {
  test("are one for all who watch the same", async () => {
    open();
    const one = chapter();
    const other = chapter();
    await until(() => one.last().ready && other.last().ready);
    expect(service.peer.subscribed().length).toBe(1);
    expect(service.handshakes).toBe(1);
  });

  test("outlive a short pause, and end after a longer one with the socket", async () => {
    open();
    const stop = client.watchChapter(CHAPTER).subscribe(() => {});
    await live();
    stop();
    const again = client.watchChapter(CHAPTER, () => {});
    await until(() => again.get().ready);
    expect(service.handshakes).toBe(1);
    again.close();
    await until(() => service.open.length === 0);
    expect(client.state.status).toBe("connecting");
    expect(service.peer.subscribed().length).toBe(1);
  });

  test("hear of all though one who listens throws", async () => {
    const reported = vi.fn();
    vi.stubGlobal("reportError", reported);
    open();
    const mistake = new Error("the page's own");
    client.watchChapter(CHAPTER, () => {
      throw mistake;
    });
    client.onState(() => {
      throw mistake;
    });
    const { last } = chapter();
    service.push(image(1, 1));
    await until(() => last().scenes.length === 1);
    expect(reported).toHaveBeenCalledWith(mistake);
    expect(client.state.status).toBe("live");
  });

  test("are not opened by looking", async () => {
    open();
    expect(client.watchChapter(CHAPTER).get().ready).toBe(false);
    expect(service.handshakes).toBe(0);
  });
});

describe("a request", () => {
  const wanted = { scene_description: "A table." };

  test("is sent again under one key until it is known to have arrived", async () => {
    open();
    service.answers.push({ status: 503, headers: { "Retry-After": "0.05" } }, { status: 500 });
    const accepted = await client.requestScene(CHAPTER, 4, wanted);
    expect(accepted.scene_number).toBe(4);
    const keys = service.requests.map((request) => request.headers["idempotency-key"]);
    expect(keys.length).toBe(3);
    expect(new Set(keys).size).toBe(1);
    await client.requestScene(CHAPTER, 4, wanted, { idempotencyKey: "mine" });
    expect(service.requests[3]?.headers["idempotency-key"]).toBe("mine");
  });

  test("that is wrong says which field, at once", async () => {
    open();
    const errors = [{ field: "style", message: "must be one of ..." }];
    service.answers.push({ status: 422, body: { detail: "The request is not valid.", code: "invalid", errors } });
    const refused = client.requestScene(CHAPTER, 1, wanted);
    await expect(refused).rejects.toMatchObject({ code: "invalid", status: 422, fields: errors });
    await expect(refused).rejects.toBeInstanceOf(ScenewireError);
    expect(service.requests.length).toBe(1);
  });

  test("with a refused token is sent once more with a new one", async () => {
    const stale = token();
    open({ getToken: ({ refresh }) => (refresh ? token() : stale) });
    service.accepts = (given) => given !== stale;
    await client.requestScene(CHAPTER, 1, wanted);
    expect(service.requests.length).toBe(2);
    service.accepts = () => false;
    await expect(client.requestScene(CHAPTER, 1, wanted)).rejects.toMatchObject({ status: 401, code: "token_expired" });
    expect(service.requests.length).toBe(4);
  });

  test("goes where the producer is, and ends when it is called off", async () => {
    open({ apiUrl: `${service.url}/joined/`, pushUrl: "http://127.0.0.1:9/" });
    await client.requestScene(CHAPTER, 1, wanted);
    expect(service.requests[0]?.url).toBe(`/joined/chapters/${CHAPTER}/images/scenes/1`);
    const signal = AbortSignal.abort();
    await expect(client.requestScene(CHAPTER, 1, wanted, { signal })).rejects.toMatchObject({ name: "AbortError" });
  });
});
