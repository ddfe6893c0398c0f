import type { ImageGenerationQueuedResponse, SceneImageRequest } from "./contract.js";
import { type Call, type Options, ScenewireError } from "./options.js";
import type { Tokens } from "./tokens.js";

const TIMEOUT_MS = 15_000;
const SENDS = 3;

export const pause = (ms: number): Promise<void> => new Promise((done) => setTimeout(done, ms));

async function refusal(response: Response): Promise<ScenewireError> {
  const { status } = response;
  // a proxy's page is no problem+json
  const problem = await response.json().catch(() => ({}));
  const after = Number(response.headers.get("Retry-After")) * 1000;
  const said = problem.detail || `The service refused (${status}).`;
  return new ScenewireError(
    said,
    problem.code || `refused_${status}`,
    status,
    problem.errors ?? [],
    after || undefined,
  );
}

/** Calls with the user's token; one that is refused is replaced, once. */
export function callerOf({ pushUrl, fetch: fetcher }: Options, tokens: Tokens): Call {
  return async (url, { timeoutMs = TIMEOUT_MS, signal, ...init } = {}) => {
    let refused: string | undefined;
    for (;;) {
      const token = await tokens.get(refused);
      const limit = AbortSignal.timeout(timeoutMs);
      let response: Response;
      try {
        response = await (fetcher ?? fetch)(new URL(url.replace(/^\/+/, "./"), `${pushUrl}/`), {
          cache: "no-store",
          ...init,
          headers: { ...init.headers, Authorization: `Bearer ${token}` },
          signal: signal ? AbortSignal.any([signal, limit]) : limit,
        });
      } catch (error) {
        if (signal?.aborted) throw error;
        throw new ScenewireError("The service cannot be reached.", "unreachable");
      }
      if (response.ok || response.status === 304) return response;
      if (response.status !== 401 || refused) throw await refusal(response);
      refused = token;
    }
  };
}

export interface RequestOptions {
  /** The same key asks for the same picture, however often it is sent; made up where it is not given. */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

/** Sent again under the same key when it is not known to have arrived, so that a picture is made once. */
export async function requestScene(
  call: Call,
  { apiUrl, pushUrl }: Options,
  chapterId: string,
  sceneNumber: number,
  body: SceneImageRequest,
  { idempotencyKey, signal }: RequestOptions = {},
): Promise<ImageGenerationQueuedResponse> {
  const url = `${apiUrl ?? pushUrl}/chapters/${encodeURIComponent(chapterId)}/images/scenes/${sceneNumber}`;
  // crypto.randomUUID exists only on https and localhost
  const key = idempotencyKey ?? crypto.getRandomValues(new Uint32Array(4)).join("-");
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  for (let sent = 1; ; sent += 1) {
    try {
      return await (await call(url, { method: "POST", headers, body: JSON.stringify(body), signal })).json();
    } catch (error) {
      const { status = 0, retryAfterMs } = error as ScenewireError;
      const passing = error instanceof ScenewireError && (!status || status === 429 || status >= 500);
      if (!passing || sent === SENDS) throw error;
      await pause(Math.min(retryAfterMs ?? 400 * 2 ** sent * Math.random(), 10_000));
    }
  }
}
