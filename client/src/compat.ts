"use client";

import {
  type ImageGenerationQueuedResponse,
  type ImageStatus,
  isTerminal,
  type SceneImageRequest,
  type SceneStatus,
  type Scenewire,
} from "@scenewire/client";
import { useEffect, useMemo, useRef } from "react";

/** What the old system's clients know; a cancelled image generation is a failed one to them. */
export type OldStatus = "pending" | "in_progress" | "completed" | "failed";

/** The old answer, with all that the new one has beside it. */
export type ImageStatusResponse = Omit<ImageStatus, "status"> & { status: OldStatus };

export interface SceneImageHandlers {
  /** At each change of a scene that is followed. */
  onStatus?(sceneNumber: number, status: ImageStatusResponse): void;
  /** When a scene that is followed has come to its end: load the chapter's images, as after the old poll. */
  reload?(sceneNumber: number, status: ImageStatusResponse): void;
}

export interface SceneImages {
  generateSceneImage(
    chapterId: string,
    sceneNumber: number,
    request: SceneImageRequest,
  ): Promise<ImageGenerationQueuedResponse>;
  getSceneImageStatus(chapterId: string, sceneNumber: number): Promise<ImageStatusResponse>;
  /** Follows an image generation to its end. It polls no more: changes are pushed, and there is no limit of 5 minutes. */
  startPollingSceneImage(sceneNumber: number, recordId: string): void;
  /** Lets go of all that is followed. */
  stop(): void;
}

function old<T extends ImageStatus>(image: T): Omit<T, "status"> & { status: OldStatus } {
  return { ...image, status: image.status === "cancelled" ? "failed" : image.status };
}

/** The old hook's functions, in their old shapes, on the new service. */
export function sceneImages(client: Scenewire, handlers: SceneImageHandlers = {}): SceneImages {
  const followed = new Map<string, () => void>();
  return {
    generateSceneImage: (chapterId, sceneNumber, request) => client.requestScene(chapterId, sceneNumber, request),
    async getSceneImageStatus(chapterId, sceneNumber) {
      const path = `chapters/${encodeURIComponent(chapterId)}/images/scenes/${sceneNumber}/status`;
      const status: SceneStatus = await (await client.call(path)).json();
      return old(status);
    },
    startPollingSceneImage(sceneNumber, recordId) {
      if (followed.has(recordId)) return;
      const watch = client.watchImage(recordId);
      let ended = false;
      const stop = watch.subscribe(({ image, error }) => {
        if (ended) return;
        if (image) handlers.onStatus?.(sceneNumber, old(image));
        ended = !!error || (image !== null && isTerminal(image));
        if (!ended) return;
        followed.delete(recordId);
        // not before `subscribe` has returned
        queueMicrotask(() => stop());
        if (image) handlers.reload?.(sceneNumber, old(image));
      });
      if (!ended) followed.set(recordId, stop);
    },
    stop() {
      for (const stop of followed.values()) stop();
      followed.clear();
    },
  };
}

/** The same as a hook: what is followed ends with the component, and the newest handlers are called. */
export function useSceneImages(client: Scenewire, handlers: SceneImageHandlers = {}): Omit<SceneImages, "stop"> {
  const newest = useRef(handlers);
  useEffect(() => {
    newest.current = handlers;
  });
  const images = useMemo(
    () =>
      sceneImages(client, {
        onStatus: (sceneNumber, status) => newest.current.onStatus?.(sceneNumber, status),
        reload: (sceneNumber, status) => newest.current.reload?.(sceneNumber, status),
      }),
    [client],
  );
  useEffect(() => () => images.stop(), [images]);
  return images;
}
