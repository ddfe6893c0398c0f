// What was asked for from here, from the click until the service's own word of it arrives.

import { type ImageStatus, ScenewireError } from "@scenewire/client";
import type { Chapter } from "@scenewire/client/react";
import { useCallback, useState } from "react";
import type { Scenes, SceneText } from "./scenes.js";

interface Asked {
  sending: boolean;
  recordId: string | null;
  error: ScenewireError | null;
}

export interface Requests {
  /** Nothing of the newest request is seen yet. */
  isOpen(number: number): boolean;
  /** Why the newest request was not accepted. */
  errorOf(number: number): ScenewireError | null;
  /** Resolves with what went wrong, if anything. */
  ask(scene: SceneText): Promise<ScenewireError | null>;
}

const known = (images: readonly ImageStatus[], recordId: string | null) =>
  recordId === null || images.some((image) => image.record_id === recordId);

export function useRequests(chapter: Chapter, scenes: Scenes): Requests {
  const [asked, setAsked] = useState<ReadonlyMap<number, Asked>>(new Map());
  const { request, images } = chapter;

  const ask = useCallback<Requests["ask"]>(
    async (scene) => {
      const set = (change: Partial<Asked>) =>
        setAsked((all) => {
          const next = { sending: false, recordId: null, error: null, ...change };
          return new Map(all).set(scene.number, next);
        });
      set({ sending: true });
      try {
        const accepted = await request(scene.number, scenes.body(scene));
        set({ recordId: accepted.record_id });
        return null;
      } catch (reason) {
        const error = reason instanceof ScenewireError ? reason : new ScenewireError(String(reason), "failed");
        set({ error });
        return error;
      }
    },
    [request, scenes],
  );

  return {
    ask,
    isOpen(number) {
      const one = asked.get(number);
      return Boolean(one && (one.sending || !known(images, one.recordId)));
    },
    errorOf: (number) => asked.get(number)?.error ?? null,
  };
}
