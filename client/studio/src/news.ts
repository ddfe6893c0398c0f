// What changed with the scenes, in words for who cannot see it.

import type { Scene } from "./phase.js";
import { failed } from "./words.js";

/** A sentence for each scene whose newest request has come to its end since. */
export function newsSince(before: Scene[], scenes: Scene[]): string[] {
  const news: string[] = [];
  for (const { text, latest } of scenes) {
    const last = before.find((scene) => scene.text.number === text.number)?.latest;
    if (!latest || last?.record_id !== latest.record_id || last.status === latest.status) continue;
    if (latest.status === "completed") news.push(`Scene ${text.number}: the picture is ready`);
    if (latest.status === "failed") news.push(`Scene ${text.number} failed: ${failed(latest)}`);
  }
  return news;
}
