// A WebSocket in the test's hands, for what takes minutes in real life.

import type { ServerFrame } from "../src/index.js";

export class FakeSocket {
  static made: FakeSocket[] = [];
  static get last(): FakeSocket {
    return FakeSocket.made[FakeSocket.made.length - 1]!;
  }

  readyState = 0;
  closed = false;
  readonly sent: { type: string; [field: string]: unknown }[] = [];
  onopen: (() => void) | null = null;
  onclose: ((event: { code: number }) => void) | null = null;
  onmessage: ((event: { data: string }) => void) | null = null;
  onerror: (() => void) | null = null;

  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {
    FakeSocket.made.push(this);
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.closed = true;
    this.readyState = 3;
  }

  // what the other side does

  welcome(expiresAt = "2100-01-01T00:00:00Z", pingIntervalMs = 15_000): this {
    this.readyState = 1;
    this.onopen?.();
    return this.say({ type: "welcome", ping_interval_ms: pingIntervalMs, expires_at: expiresAt });
  }

  say(frame: ServerFrame): this {
    this.onmessage?.({ data: JSON.stringify(frame) });
    return this;
  }

  lose(code = 1006): void {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  sentOf(type: string): object[] {
    return this.sent.filter((frame) => frame.type === type);
  }
}
