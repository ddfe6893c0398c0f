import {
  type Call,
  type Carrier,
  type Line,
  type LineEvents,
  type LineState,
  type Options,
  ScenewireError,
} from "./options.js";
import { openSocket } from "./socket.js";
import type { Tokens } from "./tokens.js";

const UNAUTHORISED = 4401;
const TOO_MANY = 4429;
const FIRST_MS = 500;
const MOST_MS = 20_000;
const STABLE_MS = 60_000;
/** So many losses without a stable minute, and what lies between them is asked for another way. */
const RESTLESS = 3;
const RENEW_EARLY_MS = 30_000;
const RENEW_LEAST_MS = 5_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** 44xx, too big, not UTF-8: the same again would end the same. */
const hopeless = (code: number): boolean => (code >= 4400 && code < 4500) || code === 1007 || code === 1009;

// all of them reach the window, those of the document on their way down
const WOKEN = ["online", "offline", "pageshow", "visibilitychange", "resume"];

/** One socket after the other, and the fallback while none gets through. */
export function openLine(options: Options, tokens: Tokens, call: Call, events: LineEvents): Line {
  let carrier: Carrier | null = null;
  /** The carrier takes scopes. */
  let open = false;
  /** When it was first answered; 0 while it was not. */
  let since = 0;
  /** Attempts since the last stable minute. */
  let attempts = 0;
  let round = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let renewal: ReturnType<typeof setTimeout> | undefined;
  /** An attempt has failed since it was last up. */
  let failed = false;
  /** The service has named the time to come back: nothing but a person cuts it short. */
  let asked = false;
  let crowded = false;
  let token: string | undefined;
  let refused: string | undefined;
  let error: ScenewireError | null = null;
  let fallback: Line | null = null;
  let other: LineState | null = null;

  async function attempt(): Promise<void> {
    stop();
    const mine = round;
    try {
      token = await tokens.get(refused);
      if (mine !== round) return;
      error = null;
      carrier = openSocket(options.WebSocket ?? WebSocket, options.pushUrl, token, {
        open() {
          open = true;
          for (const { scope, cursor } of events.scopes()) carrier?.watch(scope, cursor);
        },
        up(expiresAt) {
          since ||= Date.now();
          failed = false;
          refused = undefined;
          fall(false);
          renewBefore(Date.parse(expiresAt));
          tell();
        },
        frame: (frame) => events.frame(frame, carrier!),
        down: lost,
      });
    } catch (reason) {
      if (mine !== round) return;
      // the page's own way to a token may fail as any call does; only "nobody is signed in" is an answer
      error = reason instanceof ScenewireError ? reason : new ScenewireError(String(reason), "failed");
      lost(error.code === "signed_out" ? UNAUTHORISED : 0);
    }
  }

  function lost(code: number, retryAfterMs?: number): void {
    const lasted = since && Date.now() - since;
    const anew = code === UNAUTHORISED && !refused && !error;
    const up = since;
    stop();
    if (lasted > STABLE_MS) attempts = 0;
    if (anew) {
      refused = token;
      attempt();
    } else if (hopeless(code)) {
      failed = true;
      crowded = code === TOO_MANY;
      error ??= new ScenewireError(`The service refused (${code}).`, `refused_${code}`, code);
      fall(code !== UNAUTHORISED);
    } else {
      failed ||= !up;
      asked = retryAfterMs !== undefined;
      // full jitter: anything up to a bound that doubles, so that a crowd which lost its server does not return as one
      const most = Math.min(MOST_MS, FIRST_MS * 2 ** attempts);
      attempts += 1;
      timer = setTimeout(attempt, retryAfterMs ?? Math.random() * most);
      if (!up || attempts > RESTLESS) fall(true);
    }
    tell();
  }

  /** Forgets the socket, and whatever was to come of it. */
  function stop(): void {
    round += 1;
    since = 0;
    open = asked = crowded = false;
    clearTimeout(timer);
    clearTimeout(renewal);
    timer = undefined;
    carrier?.close();
    carrier = null;
  }

  function fall(needed: boolean): void {
    if (needed) {
      const state = (next: LineState) => {
        other = next;
        tell();
      };
      fallback ??= options.fallback?.(call, { ...events, state }) ?? null;
    } else {
      fallback?.close();
      fallback = other = null;
    }
  }

  function tell(): void {
    const dead = globalThis.navigator?.onLine === false || (failed && (!fallback || other?.status === "offline"));
    if (since) events.state({ status: "live", transport: "websocket", error: null });
    else if (other?.transport) events.state(other);
    else
      events.state({ status: dead ? "offline" : "connecting", transport: null, error: error ?? other?.error ?? null });
  }

  function renewBefore(end: number): void {
    clearTimeout(renewal);
    const left = end - Date.now();
    const wait = left > 2 * RENEW_EARLY_MS ? left - RENEW_EARLY_MS : left / 2;
    const renew = async () => {
      const mine = round;
      try {
        token = await tokens.get(token);
        if (mine === round) carrier?.authorise(token);
      } catch {
        // the line may be closed by now
        if (mine === round) renewBefore(end);
      }
    };
    renewal = setTimeout(renew, Math.min(LONGEST_TIMER_MS, Math.max(RENEW_LEAST_MS, wait)));
  }

  function hurry({ type }: Event): void {
    if (type !== "visibilitychange" || !document.hidden) {
      if (since) carrier?.check();
      else if ((timer && !asked) || crowded) attempt();
      fallback?.hurry();
    }
    tell();
  }

  for (const name of WOKEN) globalThis.addEventListener?.(name, hurry, true);
  attempt();
  tell();

  return {
    watch(scope) {
      if (open) carrier!.watch(scope);
      fallback?.watch(scope);
    },
    unwatch(scope) {
      if (open) carrier!.unwatch(scope.id);
      fallback?.unwatch(scope);
    },
    hurry() {
      error = null;
      refused = undefined;
      if (since) carrier!.check();
      else attempt();
      fallback?.hurry();
      tell();
    },
    close() {
      for (const name of WOKEN) globalThis.removeEventListener?.(name, hurry, true);
      stop();
      fall(false);
    },
  };
}
