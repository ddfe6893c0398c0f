// What takes minutes: backoff, the watchdog, the renewal of tokens.

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { connect, type Fallback, type GetToken, type Scenewire } from "../src/index.js";
import { FakeSocket } from "./fake.js";
import { CHAPTER, token } from "./service.js";

const MINUTE = 60_000;
let client: Scenewire;
let jitter: number;
let page: EventTarget & { hidden?: boolean };

beforeEach(() => {
  vi.useFakeTimers({ now: new Date("2026-11-26T10:00:00Z") });
  jitter = 0.5;
  vi.spyOn(Math, "random").mockImplementation(() => jitter);
  FakeSocket.made = [];
  page = new EventTarget();
  vi.stubGlobal("addEventListener", page.addEventListener.bind(page));
  vi.stubGlobal("removeEventListener", page.removeEventListener.bind(page));
  vi.stubGlobal("document", page);
});

afterEach(() => {
  client.close();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

async function open(getToken: GetToken = () => token(24 * 3600), fallback?: Fallback): Promise<void> {
  const Socket = FakeSocket as unknown as typeof WebSocket;
  client = connect({ pushUrl: "https://push.test/", getToken, WebSocket: Socket, fallback });
  client.watchChapter(CHAPTER, () => {});
  await pass(0);
}

const pass = (ms: number) => vi.advanceTimersByTimeAsync(ms);
const sockets = () => FakeSocket.made.length;

/** How long until another socket is opened, to the millisecond. */
async function untilNext(mostMs = MINUTE): Promise<number> {
  const [begun, before] = [Date.now(), sockets()];
  while (sockets() === before) {
    if (Date.now() - begun > mostMs) throw new Error("no other socket came");
    await pass(1);
  }
  return Date.now() - begun;
}

/** Pings as the service sends them, for so long. */
async function live(ms: number): Promise<void> {
  for (const end = Date.now() + ms; Date.now() < end; ) {
    await pass(Math.min(15_000, end - Date.now()));
    FakeSocket.last.say({ type: "ping" });
  }
}

describe("the time to the next attempt", () => {
  test("is anything up to a bound that doubles up to 20 s", async () => {
    await open();
    const waits: number[] = [];
    jitter = 0.999;
    for (let lost = 0; lost < 8; lost += 1) {
      FakeSocket.last.lose();
      waits.push(await untilNext());
    }
    expect(waits.map((ms) => Math.round(ms / 100) * 100)).toEqual([500, 1000, 2000, 4000, 8000, 16000, 20000, 20000]);
    jitter = 0;
    FakeSocket.last.lose();
    expect(await untilNext()).toBeLessThanOrEqual(1);
  });

  test("begins anew only after a stable minute", async () => {
    await open();
    jitter = 0.999;
    for (let lost = 0; lost < 3; lost += 1) {
      FakeSocket.last.lose();
      await untilNext();
    }
    FakeSocket.last.welcome();
    await live(MINUTE - 1000);
    FakeSocket.last.lose();
    expect(await untilNext()).toBeGreaterThan(3900);
    FakeSocket.last.welcome();
    await live(MINUTE + 1000);
    FakeSocket.last.lose();
    expect(await untilNext()).toBeLessThan(501);
  });

  test.each(["online", "pageshow", "resume", "visibilitychange"])("is over at once with %s", async (name) => {
    await open();
    for (let lost = 0; lost < 6; lost += 1) {
      FakeSocket.last.lose();
      await untilNext();
    }
    FakeSocket.last.lose();
    expect(client.state.status).toBe("offline");
    const before = sockets();
    page.dispatchEvent(new Event(name));
    await pass(0);
    expect(sockets()).toBe(before + 1);
    page.dispatchEvent(new Event(name));
    await pass(0);
    expect(sockets()).toBe(before + 1);
  });

  test("stays what it was while the page goes out of sight, or the service has named it", async () => {
    await open();
    FakeSocket.last.welcome().say({ type: "bye", code: 1012, retry_after_ms: 7_000 });
    FakeSocket.last.lose(1012);
    await pass(3_000);
    page.hidden = true;
    page.dispatchEvent(new Event("visibilitychange"));
    page.hidden = false;
    page.dispatchEvent(new Event("visibilitychange"));
    page.dispatchEvent(new Event("online"));
    await pass(0);
    expect(sockets()).toBe(1);
    expect(await untilNext()).toBe(4_000);
    FakeSocket.last.lose();
    client.reconnect();
    await pass(0);
    expect(sockets()).toBe(3);
  });

  test("passes though a socket never answers", async () => {
    await open();
    expect(client.state.status).toBe("connecting");
    await pass(4_999);
    expect(FakeSocket.last.closed).toBe(false);
    await pass(1);
    expect(FakeSocket.last.closed).toBe(true);
    expect(client.state.status).toBe("offline");
    await untilNext();
    FakeSocket.last.welcome();
    expect(client.state.status).toBe("live");
  });
});

describe("the watchdog", () => {
  beforeEach(async () => {
    await open();
    FakeSocket.last.welcome();
  });

  test("lets a line be on which the service pings", async () => {
    await live(10 * MINUTE);
    expect(sockets()).toBe(1);
    expect(FakeSocket.last.sentOf("ping")).toEqual([]);
  });

  test("asks when it is silent, and gives up what does not answer", async () => {
    await pass(20_000);
    expect(FakeSocket.last.sentOf("ping").length).toBe(1);
    await pass(3_000);
    FakeSocket.last.say({ type: "pong" });
    await pass(20_000);
    expect(FakeSocket.last.sentOf("ping").length).toBe(2);
    const [silent] = FakeSocket.made;
    await pass(4_000);
    expect(silent!.closed).toBe(true);
    await untilNext();
  });

  test("gives up a silent line within 25 s", async () => {
    await pass(25_000);
    expect(FakeSocket.made[0]!.closed).toBe(true);
  });

  test("is not misled by timers that a hidden tab gets once a minute", async () => {
    // the frames come in time, the timers do not
    for (let minute = 0; minute < 5; minute += 1) {
      for (let ping = 0; ping < 4; ping += 1) {
        vi.setSystemTime(Date.now() + 15_000);
        FakeSocket.last.say({ type: "ping" });
      }
      await pass(20_000);
    }
    expect(sockets()).toBe(1);
    expect(FakeSocket.last.closed).toBe(false);
  });

  test("takes a machine that has slept for what it is, and asks first", async () => {
    vi.setSystemTime(Date.now() + 8 * 3600_000);
    await pass(20_000);
    expect(FakeSocket.last.closed).toBe(false);
    expect(FakeSocket.last.sentOf("ping").length).toBe(1);
    // asleep once more between question and answer
    vi.setSystemTime(Date.now() + 3600_000);
    await pass(4_000);
    expect(FakeSocket.last.closed).toBe(false);
    expect(FakeSocket.last.sentOf("ping").length).toBe(2);
    const [dead] = FakeSocket.made;
    await pass(4_000);
    expect(dead!.closed).toBe(true);
  });

  test("looks at once when the page comes into sight or the network returns", async () => {
    await pass(1_000);
    page.dispatchEvent(new Event("visibilitychange"));
    expect(FakeSocket.last.sentOf("ping").length).toBe(1);
    page.dispatchEvent(new Event("online"));
    expect(FakeSocket.last.sentOf("ping").length).toBe(1);
    const [dead] = FakeSocket.made;
    await pass(4_000);
    expect(dead!.closed).toBe(true);
  });
});

test("sockets whose frames something changes are tried all the while, and another way fills the time between", async () => {
  const streams: Fallback = (_, events) => {
    queueMicrotask(() => events.state({ status: "live", transport: "sse", error: null }));
    return { watch() {}, unwatch() {}, hurry() {}, close() {} };
  };
  await open(undefined, streams);
  for (let loss = 1; loss <= 8; loss += 1) {
    FakeSocket.last.welcome().lose(1002);
    await pass(0);
    if (loss > 3) expect(client.state).toMatchObject({ status: "live", transport: "sse", error: null });
    await untilNext();
  }
  FakeSocket.last.welcome();
  expect(client.state).toMatchObject({ status: "live", transport: "websocket" });
});

describe("a token that ends", () => {
  const at = (ms: number) => new Date(Date.now() + ms).toISOString();

  test("is renewed on the line half a minute before", async () => {
    const second = token(7200);
    const getToken = vi.fn(({ refresh }) => (refresh ? second : token(600)));
    await open(getToken);
    FakeSocket.last.welcome(at(10 * MINUTE));
    await live(9.5 * MINUTE - 1_000);
    expect(getToken).toHaveBeenCalledTimes(1);
    await live(1_000);
    expect(FakeSocket.last.sentOf("auth")).toEqual([{ type: "auth", token: second }]);
    FakeSocket.last.say({ type: "welcome", ping_interval_ms: 15_000, expires_at: at(120 * MINUTE) });
    await live(100 * MINUTE);
    expect(getToken).toHaveBeenCalledTimes(2);
    expect(sockets()).toBe(1);
  });

  test("that lives shortly is renewed at half its life, and asked for again when that fails", async () => {
    let away = true;
    const getToken = vi.fn(({ refresh }) => {
      if (refresh && away) throw new Error("away");
      return token(40);
    });
    await open(getToken);
    FakeSocket.last.welcome(at(40_000));
    await live(20_000);
    expect(getToken).toHaveBeenCalledTimes(2);
    expect(FakeSocket.last.sentOf("auth")).toEqual([]);
    away = false;
    await live(10_000);
    expect(FakeSocket.last.sentOf("auth").length).toBe(1);
  });

  test("is asked for no more once the line is closed, whatever becomes of a renewal on its way", async () => {
    let fail: (reason: Error) => void = () => {};
    const getToken = vi.fn(({ refresh }) =>
      refresh
        ? new Promise<string>((_, reject) => {
            fail = reject;
          })
        : token(40),
    );
    await open(getToken);
    FakeSocket.last.welcome(at(40_000));
    await live(20_000);
    expect(getToken).toHaveBeenCalledTimes(2);
    client.close();
    fail(new Error("away"));
    await pass(10 * MINUTE);
    expect(getToken).toHaveBeenCalledTimes(2);
  });

  test("in the far future sets no timer off at once", async () => {
    const getToken = vi.fn(() => token(400 * 24 * 3600));
    await open(getToken);
    FakeSocket.last.welcome(at(400 * 24 * 3600_000));
    await live(MINUTE);
    expect(getToken).toHaveBeenCalledTimes(1);
  });

  test("is replaced when it has lapsed while nothing was connected", async () => {
    const getToken = vi.fn(() => token(300));
    await open(getToken);
    FakeSocket.last.welcome(at(300_000));
    vi.setSystemTime(Date.now() + 3600_000);
    FakeSocket.last.lose(1006);
    await untilNext();
    expect(getToken).toHaveBeenLastCalledWith({ refresh: true });
  });

  test("is replaced at once where the service says so, and that ends a line but once", async () => {
    const getToken = vi.fn(() => token(3600, { n: getToken.mock.calls.length }));
    await open(getToken);
    FakeSocket.last.welcome();
    await live(MINUTE);
    FakeSocket.last.lose(4401);
    await pass(0);
    expect(sockets()).toBe(2);
    FakeSocket.last.welcome();
    FakeSocket.last.lose(4401);
    await pass(0);
    expect(sockets()).toBe(3);
    FakeSocket.last.lose(4401);
    await pass(10 * MINUTE);
    expect(sockets()).toBe(3);
    expect(client.state).toMatchObject({ status: "offline", error: { status: 4401 } });
  });
});

test("what is too much for the service is tried again by whoever looks at the page", async () => {
  await open();
  FakeSocket.last.welcome().lose(4429);
  await pass(10 * MINUTE);
  expect(sockets()).toBe(1);
  page.dispatchEvent(new Event("visibilitychange"));
  await pass(0);
  expect(sockets()).toBe(2);
});

test("clocks that differ do not count as lag", async () => {
  await open();
  const { say } = FakeSocket.last.welcome();
  const snapshot = { type: "snapshot" as const, id: `c:${CHAPTER}`, images: [], cursor: "a", resumed: null };
  say.call(FakeSocket.last, snapshot);
  const { image } = await import("./service.js");
  const told = (version: number, agoMs: number) => {
    const updated_at = new Date(Date.now() - agoMs).toISOString();
    FakeSocket.last.say({ type: "status", image: image(1, version, { updated_at }), cursor: "b" });
    return client.state.lag;
  };
  expect(told(1, 40)).toBe(40);
  expect(told(2, 700)).toBe(700);
  expect(told(3, -5_000)).toBe(0);
  expect(told(4, -4_900)).toBe(100);
});
