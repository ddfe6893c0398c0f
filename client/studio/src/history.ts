// What one may look back at: the attempts of an image generation, the pictures a scene has had.

import type { ImageStatus } from "@scenewire/client";
import { useScenewire } from "@scenewire/client/react";
import { useEffect, useState } from "react";

export interface Attempt {
  attempt: number;
  model_id: string;
  prompt: string;
  claimed_at: string | null;
  sent_at: string | null;
  closed_at: string | null;
  outcome: string | null;
  counted: boolean | null;
  error_code: string | null;
  /** What happened, for a person. */
  message: string;
  cost_usd: number | null;
  charge: "settled" | "uncertain" | "open" | "released";
}

interface Read<T> {
  found: T | null;
  error: string | null;
}

/** What lies at `path`; read again whenever `version` changes, the old shown meanwhile. */
function useRead<T>(path: string | null, version: unknown): Read<T> {
  const { call } = useScenewire();
  const [read, setRead] = useState<Read<T> & { path: string | null }>({ path: null, found: null, error: null });
  // another version is another answer
  useEffect(() => {
    if (!path) return;
    const given = new AbortController();
    const own = (next: Read<T>) => !given.signal.aborted && setRead({ path, ...next });
    call(path, { signal: given.signal })
      .then(async (response) => own({ found: await response.json(), error: null }))
      .catch((reason: unknown) => own({ found: null, error: reason instanceof Error ? reason.message : "" }));
    return () => given.abort();
  }, [call, path, version]);
  return read.path === path ? read : { found: null, error: null };
}

export function useAttempts(image: ImageStatus | null): Read<{ attempts: Attempt[] }> {
  return useRead(image && `/images/${image.record_id}/attempts`, image?.version);
}

/** The newest first. */
export function usePictures(current: ImageStatus | null): Read<{ images: ImageStatus[] }> {
  const path = current && `/chapters/${current.chapter_id}/images/scenes/${current.scene_number}/pictures`;
  return useRead(path, current?.record_id);
}
