// Talks to the simulator's own side.

const TIMEOUT_MS = 5_000;

/** `call("script", {method, ...})`: the JSON of the simulator at `url`; an Error says what a person can do. */
export function callsOf(url) {
  return async (path, options = {}) => {
    let response;
    try {
      const limit = { credentials: "omit", cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) };
      response = await fetch(`${url.replace(/\/+$/, "")}/simulator/${path}`, { ...limit, ...options });
    } catch {
      throw new Error("The simulator does not answer. Is it still running?");
    }
    const body = await response.json();
    if (response.ok) return body;
    const faults = (body.errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    throw new Error([body.detail ?? `The simulator answered ${response.status}.`, ...faults].join(" "));
  };
}
