import { BEARER_PREFIX, type ServerFrame, SUBPROTOCOL } from "./contract.js";
import type { Carrier, CarrierEvents, Scope } from "./options.js";

const CONNECT_MS = 5_000;
const SLACK_MS = 5_000;
const PROBE_MS = 4_000;

/** One WebSocket, from its handshake to its loss. */
export function openSocket(Socket: typeof WebSocket, pushUrl: string, token: string, events: CarrierEvents): Carrier {
  const bearer = btoa(token).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
  const socket = new Socket(`${pushUrl.replace(/^http/, "ws")}/ws`, [SUBPROTOCOL, BEARER_PREFIX + bearer]);
  let heard = 0;
  let probes = 0;
  let probedAt = 0;
  let silenceMs = 0;
  let retryAfterMs: number | undefined;
  // until the first frame, the time to connect
  let timer = setTimeout(() => lost(0), CONNECT_MS);

  const send = (frame: object) => {
    if (socket.readyState === 1) socket.send(JSON.stringify(frame));
  };

  function close(): void {
    clearTimeout(timer);
    socket.onopen = socket.onmessage = socket.onclose = socket.onerror = null;
    // closing what is dead takes long, and nobody waits for it
    socket.close();
  }

  function lost(code: number): void {
    close();
    events.down(code, retryAfterMs);
  }

  function rest(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(look, ms);
  }

  function probe(): void {
    probes += 1;
    probedAt = Date.now();
    send({ type: "ping" });
    rest(PROBE_MS);
  }

  // The clock on the wall decides, not the timer: those of a hidden tab come late, and those of a sleeping machine
  // before the frames that waited meanwhile.
  function look(): void {
    const now = Date.now();
    if (probes) {
      if (probes > 1 || now - probedAt < 2 * PROBE_MS) lost(0);
      else probe();
    } else if (now - heard < silenceMs) rest(silenceMs - (now - heard));
    else probe();
  }

  socket.onopen = () => events.open();
  socket.onclose = ({ code }) => lost(code);
  socket.onerror = () => {};
  socket.onmessage = ({ data }) => {
    heard = Date.now();
    if (probes) {
      probes = 0;
      rest(silenceMs);
    }
    let frame: ServerFrame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (frame.type === "welcome") {
      silenceMs = frame.ping_interval_ms + SLACK_MS;
      rest(silenceMs);
      events.up(frame.expires_at);
    } else if (frame.type === "bye") {
      retryAfterMs = frame.retry_after_ms;
    } else events.frame(frame);
  };

  return {
    watch(scope: Scope, cursor) {
      send({ type: "subscribe", ...scope, cursor });
    },
    unwatch(id) {
      send({ type: "unsubscribe", id });
    },
    authorise(fresh) {
      send({ type: "auth", token: fresh });
    },
    check() {
      if (silenceMs && !probes) probe();
    },
    close,
  };
}
