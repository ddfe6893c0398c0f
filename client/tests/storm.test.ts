// Everything at random, from a seed: whatever happens to its lines, a client ends with what the service has.

import { afterEach, expect, test } from "vitest";
import { fallback } from "../src/fallback.js";
import { connect, type ImageStatus, type Scenewire } from "../src/index.js";
import { tabs } from "../src/tabs.js";
import { CHAPTER, image, Service, token, until } from "./service.js";

const STEPS = 150;
const SCENES = 6;
const opened: Scenewire[] = [];
let service: Service;

afterEach(async () => {
  for (const client of opened.splice(0)) client.close();
  await service.stop();
});

/** Numbers that look random, the same for the same seed (mulberry32). */
function dice(seed: number): (sides: number) => number {
  let state = seed;
  return (sides) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

const versions = (images: readonly ImageStatus[]) =>
  Object.fromEntries(images.map(({ record_id, version }) => [record_id, version]));

test.each([1, 2, 3, 4, 5, 6])("seed %d", async (seed) => {
  const roll = dice(seed);
  service = await new Service().start();
  const common = { pushUrl: service.url, getToken: () => token(), lingerMs: 10 };
  // one alone, two that share, one without a fallback
  const clients = [
    connect({ ...common, fallback }),
    connect({ ...common, fallback, share: tabs() }),
    connect({ ...common, fallback, share: tabs() }),
    connect(common),
  ];
  opened.push(...clients);
  const fallen: string[] = [];
  const watches = clients.map((client) => {
    const seen = new Map<string, number>();
    return client.watchChapter(CHAPTER, ({ images }) => {
      for (const { record_id, version } of images) {
        if (version < (seen.get(record_id) ?? 0)) fallen.push(`${record_id} from ${seen.get(record_id)} to ${version}`);
        seen.set(record_id, version);
      }
    });
  });
  const version = new Map<number, number>();
  const next = () => {
    const scene = 1 + roll(SCENES);
    version.set(scene, (version.get(scene) ?? 0) + 1);
    return image(scene, version.get(scene)!);
  };
  for (let step = 0; step < STEPS; step += 1) {
    const what = roll(12);
    if (what < 5) service.push(next());
    else if (what === 5) {
      // it tells nobody only when nobody is there
      for (const { socket } of service.open) socket.terminate();
      for (const stream of service.streams) stream.destroy();
      service.miss(next());
    } else if (what === 6 && service.log.length) {
      // once more, or late: versions decide
      const old = service.log[roll(service.log.length)]!;
      for (const peer of service.open) peer.send({ type: "status", image: old, cursor: service.cursor() });
    } else if (what === 7) for (const { socket } of service.open) if (roll(2)) socket.terminate();
    if (what === 8) for (const stream of service.streams) if (roll(2)) stream.destroy();
    if (what === 9) service.mode = (["welcome", "refuse", "welcome"] as const)[roll(3)]!;
    if (what === 10) clients[roll(clients.length)]!.reconnect();
    if (what === 11) for (const { socket } of service.open) if (roll(2)) socket.close(1012);
    await new Promise((again) => setTimeout(again, roll(4)));
  }
  service.mode = "welcome";
  for (const client of clients) client.reconnect();
  const truth = versions(service.images({ id: "", chapter_id: CHAPTER }));
  for (const watch of watches) {
    await until(
      () => JSON.stringify(order(versions(watch.get().images))) === JSON.stringify(order(truth)),
      "the truth",
      10_000,
    );
  }
  expect(fallen).toEqual([]);
});

const order = (of: Record<string, number>) => Object.entries(of).sort();
