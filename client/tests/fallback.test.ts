import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { fallback, longPoll } from "../src/fallback.js";
import { connect, type Options, type Scenewire } from "../src/index.js";
import { messagesOf } from "../src/messages.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;

beforeEach(async () => {
  service = await new Service().start();
  service.mode = "refuse";
});

afterEach(async () => {
  vi.useRealTimers();
  client.close();
  await service.stop();
});

function open(options: Partial<Options> = {}) {
  client = connect({ pushUrl: service.url, getToken: () => token(), fallback, ...options });
  return client.watchChapter(CHAPTER, () => {});
}

/** The service's clock goes on; the client's stands still until it is moved. */
const standStill = () => vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
const calls = (path: string) => service.requests.filter(({ url }) => url?.includes(path));

describe("where no socket gets through", () => {
  test("changes are streamed", async () => {
    service.push(image(1, 1));
    const watch = open();
    await until(() => watch.get().ready);
    expect(client.state).toMatchObject({ status: "live", transport: "sse", error: null });
    service.push(image(1, 2));
    await until(() => watch.get().scenes[0]?.latest.version === 2);
    expect(client.state.lag).not.toBeNull();
    expect(calls("/events")[0]?.headers.authorization).toMatch(/^Bearer /);
  });

  test("a stream that ends is taken up where it was", async () => {
    const watch = open();
    service.push(image(1, 1));
    await until(() => watch.get().scenes[0]?.latest.version === 1);
    for (const stream of service.streams) stream.destroy();
    service.miss(image(1, 2));
    await until(() => watch.get().scenes[0]?.latest.version === 2);
    expect(calls("/events").map(({ headers }) => headers["last-event-id"])).toEqual([undefined, "at-1"]);
    expect(client.state).toMatchObject({ status: "live", transport: "sse" });
  });

  test("a stream is opened again when the service asked for it", async () => {
    open();
    await until(() => client.state.transport === "sse");
    const data = JSON.stringify({ type: "bye", code: 1012, retry_after_ms: 400 });
    for (const stream of service.streams) stream.end(`event: bye\ndata: ${data}\n\n`);
    await until(() => client.state.transport === null);
    const gone = performance.now();
    await until(() => client.state.transport === "sse");
    expect(performance.now() - gone).toBeGreaterThan(380);
  });

  test("and no stream either, changes are asked for", async () => {
    service.sse = "missing";
    service.push(image(1, 1));
    const watch = open();
    await until(() => watch.get().ready);
    expect(client.state).toMatchObject({ status: "polling", transport: "poll" });
    await until(() => calls("?cursor=at-1").length === 1);
    expect(calls("?cursor=at-1")[0]?.headers.prefer).toBe("wait=25");
    service.push(completed(1, 2));
    await until(() => watch.get().done);
    await until(() => calls("?cursor=at-2").length === 1);
    expect(calls("/events").length).toBe(1);
  });

  test("and there are too many streams, changes are asked for; a restart is waited for", async () => {
    service.sse = "full";
    open();
    await until(() => client.state.transport === "poll");
    client.close();
    service.sse = "restarting";
    open();
    await until(() => client.state.status === "offline");
    service.sse = "whole";
    await until(() => client.state.transport === "sse");
  });

  test("and a proxy keeps streams to itself, changes are asked for after 5 s", async () => {
    standStill();
    service.sse = "buffered";
    service.push(image(1, 1));
    const watch = open();
    await until(() => calls("/events").length === 1);
    await vi.advanceTimersByTimeAsync(4_900);
    expect(watch.get().ready).toBe(false);
    await vi.advanceTimersByTimeAsync(200);
    await until(() => watch.get().ready);
    expect(client.state).toMatchObject({ status: "polling", transport: "poll" });
  });

  test("and streams are cut short time and again, changes are asked for", async () => {
    const watch = open();
    for (let cut = 0; cut < 3; cut += 1) {
      await until(() => service.streams.size === 1 && calls("/events").length === cut + 1);
      await until(() => client.state.transport === "sse");
      for (const stream of service.streams) stream.end();
      await until(() => client.state.transport !== "sse");
    }
    await until(() => client.state.transport === "poll");
    service.push(image(1, 1));
    await until(() => watch.get().scenes.length === 1);
  });

  test("because none is ever answered, that is known after 5 s", async () => {
    standStill();
    service.mode = "never";
    const watch = open();
    await until(() => service.handshakes === 1);
    expect(client.state.status).toBe("connecting");
    await vi.advanceTimersByTimeAsync(5_000);
    await until(() => watch.get().ready);
    expect(client.state).toMatchObject({ status: "live", transport: "sse" });
  });

  test("but sockets come back, they go on where the fallback was, and it ends", async () => {
    const watch = open();
    service.push(image(1, 1));
    await until(() => watch.get().scenes.length === 1);
    service.mode = "welcome";
    await until(() => client.state.transport === "websocket", "a socket", 10_000);
    await until(() => service.streams.size === 0);
    await until(() => service.peer.subscribed().length === 1);
    expect(service.peer.subscribed()[0]).toMatchObject({ cursor: "at-1" });
    service.push(image(1, 2));
    await until(() => watch.get().scenes[0]?.latest.version === 2);
  });

  test.each(["whole", "missing"] as const)("all is asked for again beside it (streams: %s)", async (sse) => {
    service.sse = sse;
    service.push(image(1, 1));
    const watch = open();
    await until(() => watch.get().ready);
    service.log.length = 0;
    service.miss(image(1, 1, { eta_seconds: 12 }));
    watch.refresh();
    await until(() => watch.get().scenes[0]?.latest.eta_seconds === 12);
    service.push(image(1, 2));
    await until(() => watch.get().scenes[0]?.latest.version === 2);
    expect(calls("/events").length).toBe(1);
  });

  test("one image is asked for by its tag, until it has come to its end", async () => {
    service.push(image(1, 1));
    client = connect({ pushUrl: service.url, getToken: () => token(), fallback });
    const watch = client.watchImage(image(1, 1).record_id, () => {});
    await until(() => watch.get().image?.version === 1);
    await until(() => calls("/images/").length === 2);
    expect(calls("/images/")[1]?.headers).toMatchObject({ prefer: "wait=25" });
    expect(calls("/images/")[1]?.headers["if-none-match"]).toMatch(/\.1"$/);
    service.push(completed(1, 2));
    await until(() => watch.get().done);
    const asked = service.requests.length;
    service.push(completed(1, 3));
    expect(service.requests.length).toBe(asked);
  });

  test("an image of somebody else is an error", async () => {
    client = connect({ pushUrl: service.url, getToken: () => token(), fallback });
    const watch = client.watchImage(image(1, 1).record_id, () => {});
    await until(() => watch.get().error);
    expect(watch.get().error?.code).toBe("not_found");
  });
});

describe("where nothing gets through", () => {
  test("it is said, and tried again when the service asked for it", async () => {
    service.polls = false;
    const watch = open({ fallback: longPoll });
    await until(() => client.state.status === "offline");
    const asked = performance.now();
    service.polls = true;
    await until(() => watch.get().ready);
    expect(performance.now() - asked).toBeGreaterThan(900);
    expect(client.state.status).toBe("polling");
  });

  test("a token that is refused ends it, after a new one was tried", async () => {
    service.accepts = () => false;
    const getToken = vi.fn(() => token());
    open({ getToken });
    await until(() => client.state.status === "offline");
    expect(client.state.error?.status).toBe(401);
  });
});

test("a socket that is refused for being too many leaves the polls", async () => {
  service.mode = "welcome";
  service.sse = "missing";
  const watch = open();
  await until(() => client.state.transport === "websocket");
  service.peer.socket.close(4429);
  await until(() => client.state.transport === "poll");
  service.push(image(1, 1));
  await until(() => watch.get().scenes.length === 1);
  expect(service.handshakes).toBe(1);
});

test("messages of a stream are read however they are cut", async () => {
  client = connect({ pushUrl: service.url, getToken: () => null });
  const text = ': hello\r\nid: 1\revent: a\ndata: {"x":\ndata:"ü"}\n\ndata\n\nid: 2\nretry: 5\n\n:\ndata: last\n\n';
  const whole = async (sizes: number) => {
    const bytes = new TextEncoder().encode(text);
    const body = new ReadableStream({
      start(stream) {
        for (let at = 0; at < bytes.length; at += sizes) stream.enqueue(bytes.slice(at, at + sizes));
        stream.close();
      },
    });
    const read = [];
    for await (const data of messagesOf(new Response(body))) read.push(data);
    return read;
  };
  const expected = ["", '{"x":\n"ü"}', "", "", "last"];
  for (const size of [1, 2, 3, 7, 1000]) expect(await whole(size)).toEqual(expected);
});
