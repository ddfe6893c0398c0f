// How it stands with one scene, from what the service says and what was asked for from here.

import type { ImageStatus, ScenewireError } from "@scenewire/client";
import type { SceneText } from "./scenes.js";
import { failed, isUnderWay, underWay } from "./words.js";

export type Phase = "loading" | "empty" | "busy" | "failed" | "ready";

export interface Scene {
  text: SceneText;
  /** The newest request. */
  latest: ImageStatus | null;
  /** The newest completed picture: shown until there is a newer one. */
  current: ImageStatus | null;
  phase: Phase;
  /** What the service did not accept, in its own words. */
  refusal: ScenewireError | null;
}

export function phaseOf(
  { latest, current, refusal }: Pick<Scene, "latest" | "current" | "refusal">,
  { ready, asking }: { ready: boolean; asking: boolean },
): Phase {
  if (asking || isUnderWay(latest)) return "busy";
  if (refusal || latest?.status === "failed" || latest?.status === "cancelled") return "failed";
  if (current) return "ready";
  return ready ? "empty" : "loading";
}

/** In a few words, for the chapter's bar and for its reader. */
export function phaseWords({ phase, latest }: Scene, now: number): string {
  if (phase === "busy") return isUnderWay(latest) ? underWay(latest, now).headline : "requested";
  return { loading: "loading", empty: "no picture yet", failed: "failed", ready: "picture ready" }[phase];
}

export const faultWords = ({ refusal, latest }: Scene): string => refusal?.message ?? failed(latest);
