import type { Chapter } from "@scenewire/client/react";
import { useEffect, useRef } from "react";
import { phaseOf, type Scene } from "./phase.js";
import type { Requests } from "./requests.js";
import type { SceneText } from "./scenes.js";

/** The chapter's scenes: their words, and what the service knows of each. One that is as it was is the same object. */
export function useScenes(chapter: Chapter, texts: readonly SceneText[], requests: Requests): Scene[] {
  const before = useRef(new Map<number, Scene>());
  const next = texts.map((text) => {
    const { latest = null, current = null } = chapter.scenes.find((one) => one.sceneNumber === text.number) ?? {};
    const asking = requests.isOpen(text.number);
    const refusal = asking ? null : requests.errorOf(text.number);
    const scene = {
      text,
      latest,
      current,
      refusal,
      phase: phaseOf({ latest, current, refusal }, { ready: chapter.ready, asking }),
    };
    const last = before.current.get(text.number);
    const isSame = last && (Object.keys(scene) as (keyof Scene)[]).every((name) => last[name] === scene[name]);
    return isSame ? last : scene;
  });
  useEffect(() => {
    before.current = new Map(next.map((scene) => [scene.text.number, scene]));
  });
  return next;
}
