// @vitest-environment happy-dom

import { act, type ReactNode, StrictMode } from "react";
import { createRoot, hydrateRoot, type Root } from "react-dom/client";
import { renderToString } from "react-dom/server";
import { afterEach, beforeEach, describe, expect, type MockInstance, test, vi } from "vitest";
import { WebSocket } from "ws";
import { connect, type Scenewire } from "../src/index.js";
import {
  type Scene,
  ScenewireProvider,
  useChapter,
  useConnection,
  useImage,
  useScene,
  useScenewire,
} from "../src/react.js";
import { CHAPTER, completed, image, Service, token, until } from "./service.js";

let service: Service;
let client: Scenewire;
let root: Root | undefined;
let place: HTMLElement;
let frames: (() => void)[];
/** What React has to say against it. */
let complaints: MockInstance;

beforeEach(async () => {
  vi.stubGlobal("IS_REACT_ACT_ENVIRONMENT", true);
  frames = [];
  vi.stubGlobal("requestAnimationFrame", (draw: () => void) => frames.push(draw));
  vi.stubGlobal("cancelAnimationFrame", () => {});
  complaints = vi.spyOn(console, "error").mockImplementation(() => {});
  service = await new Service().start();
  client = connect({
    pushUrl: service.url,
    getToken: () => token(),
    lingerMs: 50,
    WebSocket: WebSocket as unknown as typeof globalThis.WebSocket,
    fetch: (input, init) => nodeFetch(input, init),
  });
  place = document.createElement("div");
});

const nodeFetch: typeof fetch = async (input, init) => {
  // happy-dom's own fetch keeps to the page's origin
  const { request } = await import("node:http");
  return new Promise((done, fail) => {
    const { method, body, headers } = init ?? {};
    const sent = request(String(input), { method, headers: headers as Record<string, string> }, async (answer) => {
      const chunks: Buffer[] = [];
      for await (const chunk of answer) chunks.push(chunk);
      done(new Response(Buffer.concat(chunks), { status: answer.statusCode }));
    });
    sent.on("error", fail);
    sent.end(body);
  });
};

afterEach(async () => {
  await act(() => root?.unmount());
  root = undefined;
  client.close();
  await service.stop();
  expect(complaints).not.toHaveBeenCalled();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

async function show(page: ReactNode): Promise<void> {
  root ??= createRoot(place);
  await act(() => root!.render(<ScenewireProvider client={client}>{page}</ScenewireProvider>));
}

/** Paints one frame: the callbacks that were there before it. */
const paint = () =>
  act(() => {
    for (const draw of frames.splice(0)) draw();
  });

async function painted(holds: () => unknown): Promise<void> {
  const end = performance.now() + 5_000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`never came true: ${holds}\n${place.innerHTML}`);
    await act(() => new Promise((again) => setImmediate(again)));
    await paint();
  }
}

let renders = 0;

function Chapter({ initial }: { initial?: ReturnType<typeof image>[] }) {
  const { scenes, ready, status } = useChapter(CHAPTER, { initial });
  renders += 1;
  return (
    <p data-status={status} data-ready={ready}>
      {scenes.map(({ sceneNumber, latest }) => `${sceneNumber}.${latest.version}`).join(" ")}
    </p>
  );
}

describe("useChapter", () => {
  test("shows what is and what comes", async () => {
    service.push(image(1, 1));
    await show(<Chapter />);
    expect(place.innerHTML).toBe('<p data-status="connecting" data-ready="false"></p>');
    await painted(() => place.textContent === "1.1");
    expect(place.innerHTML).toContain('data-status="live"');
    service.push(image(1, 2));
    await painted(() => place.textContent === "1.2");
  });

  test("draws once a frame, whatever comes meanwhile", async () => {
    await show(<Chapter />);
    await painted(() => place.innerHTML.includes('data-ready="true"'));
    const before = renders;
    for (let version = 1; version <= 60; version += 1) service.push(image(1, version));
    const heard = client.watchChapter(CHAPTER);
    await act(() => until(() => heard.get().scenes[0]?.latest.version === 60));
    expect(renders).toBe(before);
    await paint();
    expect(renders).toBe(before + 1);
    expect(place.textContent).toBe("1.60");
  });

  test("draws in a hidden tab too, where no frames are painted", async () => {
    await show(<Chapter />);
    await act(() => until(() => client.watchChapter(CHAPTER).get().ready));
    service.push(image(1, 1));
    await act(() => until(() => place.textContent === "1.1"));
  });

  test("opens one socket in StrictMode, with one subscription", async () => {
    await show(
      <StrictMode>
        <Chapter />
        <Chapter />
      </StrictMode>,
    );
    await painted(() => place.innerHTML.includes('data-ready="true"'));
    expect(service.handshakes).toBe(1);
    expect(service.peer.subscribed().length).toBe(1);
  });

  test("ends the socket a moment after it is gone, and goes on with one when it comes back sooner", async () => {
    await show(<Chapter />);
    await painted(() => client.state.status === "live");
    await show(null);
    await show(<Chapter />);
    await painted(() => place.innerHTML.includes('data-ready="true"'));
    expect(service.handshakes).toBe(1);
    await show(null);
    await until(() => service.open.length === 0);
  });

  test("is drawn on a server from what it is given, and opens nothing", async () => {
    const initial = [completed(1, 4)];
    const page = (
      <ScenewireProvider client={client}>
        <Chapter initial={initial} />
      </ScenewireProvider>
    );
    place.innerHTML = renderToString(page);
    expect(place.innerHTML).toBe('<p data-status="connecting" data-ready="true">1.4</p>');
    expect(service.handshakes).toBe(0);
    service.push(completed(1, 5));
    await act(() => {
      root = hydrateRoot(place, page);
    });
    expect(place.textContent).toBe("1.4");
    await painted(() => place.textContent === "1.5");
  });
});

describe("useScene", () => {
  let scene: Scene;
  let drawn = 0;

  function Card({ number }: { number: number }) {
    const it = useScene(CHAPTER, number);
    if (number === 1) {
      scene = it;
      drawn += 1;
    }
    return <b>{it.latest?.progress ?? "-"}</b>;
  }

  test("draws its own scene alone", async () => {
    service.push(image(1, 1));
    await show([1, 2].map((number) => <Card key={number} number={number} />));
    await painted(() => place.textContent === "0-");
    expect(service.peer.subscribed().length).toBe(1);
    const before = drawn;
    service.push(image(2, 1, { progress: 50 }));
    await painted(() => place.textContent === "050");
    expect(drawn).toBe(before);
    service.push(image(1, 2, { progress: 10 }));
    await painted(() => place.textContent === "1050");
    expect(drawn).toBe(before + 1);
    expect(scene).toMatchObject({ status: "live", ready: true, current: null, latest: { version: 2 } });
    expect(scene.lag).not.toBeNull();
  });

  test("asks for a picture, and is asking until its record is seen", async () => {
    await show(<Card number={1} />);
    await painted(() => scene.ready);
    let asked: Promise<unknown> = Promise.resolve();
    await act(async () => {
      asked = scene.request({ scene_description: "A table." });
    });
    expect(scene.requesting).toBe(true);
    await act(async () => {
      await asked;
    });
    expect(service.bodies).toEqual([{ scene_description: "A table." }]);
    expect(scene.requesting).toBe(true);
    service.push(image(1, 1));
    await painted(() => scene.latest);
    expect(scene.requesting).toBe(false);
  });

  test("says why it was not accepted", async () => {
    await show(<Card number={1} />);
    service.answers.push({ status: 422, body: { detail: "Say what is to be seen.", code: "invalid" } });
    await act(async () => {
      await scene.request({ scene_description: "" });
    });
    await painted(() => scene.error);
    expect(scene).toMatchObject({ requesting: false, error: { message: "Say what is to be seen.", status: 422 } });
  });

  test("says why its chapter cannot be watched, until it can", async () => {
    await show(<Card number={1} />);
    await painted(() => scene.ready);
    expect(scene.error).toBeNull();
    const refused = {
      type: "error",
      id: `c:${CHAPTER}`,
      code: "forbidden",
      message: "Shared is another one.",
    } as const;
    service.peer.send(refused);
    await painted(() => scene.error);
    expect(scene).toMatchObject({ latest: null, error: { code: "forbidden", message: "Shared is another one." } });
    service.answers.push({ status: 422, body: { detail: "Say what is to be seen.", code: "invalid" } });
    await act(async () => {
      await scene.request({ scene_description: "" });
    });
    expect(scene.error?.code).toBe("invalid");
    await act(async () => {
      await scene.request({ scene_description: "A table." });
    });
    expect(scene.error?.code).toBe("forbidden");
    scene.refresh();
    await painted(() => !scene.error);
  });
});

test("useImage follows one record to its end", async () => {
  function Picture() {
    const { image: shown, done } = useImage(image(1, 1).record_id);
    return <i>{`${shown?.status} ${done}`}</i>;
  }
  service.push(image(1, 1));
  await show(<Picture />);
  await painted(() => place.textContent === "pending false");
  service.push(completed(1, 2));
  await painted(() => place.textContent === "completed true");
});

test("useConnection tells how things are", async () => {
  function Badge() {
    const { status, transport, error, reconnect } = useConnection();
    return <button type="button" onClick={reconnect}>{`${status} ${transport} ${error?.code}`}</button>;
  }
  await show([<Badge key="badge" />, <Chapter key="chapter" />]);
  await painted(() => place.textContent?.startsWith("live websocket undefined"));
  service.peer.socket.close(4403);
  await painted(() => place.textContent?.startsWith("offline null refused_4403"));
  await act(() => place.querySelector("button")!.click());
  await painted(() => place.textContent?.startsWith("live"));
});

test("a hook outside of a provider says what is missing", () => {
  const Lost = () => <>{String(useScenewire())}</>;
  expect(() => renderToString(<Lost />)).toThrow("<ScenewireProvider client={connect({...})}>");
});
