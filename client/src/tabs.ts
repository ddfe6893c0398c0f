import { type Line, type LineEvents, ScenewireError, type Scope, type Share } from "@scenewire/client";
import { errorOf, Leader, type Said } from "./leader.js";

const RETRY_MS = 5_000;
/** The service pings every 15 s, and whoever leads passes it on. */
const SILENCE_MS = 25_000;
const LOOK_MS = 10_000;
const ANSWER_MS = 4_000;

const WOKEN = ["online", "pageshow", "visibilitychange", "resume"];

/**
 * All tabs of an origin and user share one socket: that of the tab which holds a Web Lock. When it is closed, or answers
 * no more, another takes its place. Where the platform has no Web Locks (over plain http) each tab has its own.
 */
export function tabs(): Share {
  return (open, events, { pushUrl }, user) => {
    const locks = globalThis.navigator?.locks;
    if (!locks || !globalThis.BroadcastChannel) return open(events);
    return new Tab(open, events, async () => `scenewire ${pushUrl} ${await user()}`, locks);
  };
}

class Tab implements Line {
  readonly #open: (events: LineEvents) => Line;
  readonly #events: LineEvents;
  readonly #name: () => Promise<string>;
  readonly #locks: LockManager;
  readonly #tab = crypto.getRandomValues(new Uint32Array(4)).join("-");
  readonly #closed = new AbortController();
  #channel: BroadcastChannel | null = null;
  #leader: Leader | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** When another tab was last heard of. */
  #heard = 0;

  constructor(open: (events: LineEvents) => Line, events: LineEvents, name: () => Promise<string>, locks: LockManager) {
    this.#open = open;
    this.#events = events;
    this.#name = name;
    this.#locks = locks;
    for (const woken of WOKEN) globalThis.addEventListener?.(woken, this.#look, true);
    this.#join();
  }

  watch(scope: Scope): void {
    this.#say({ is: "watch", tab: this.#tab, scope });
  }

  unwatch({ id }: Scope): void {
    this.#say({ is: "drop", tab: this.#tab, id });
  }

  hurry(): void {
    if (this.#channel) this.#say({ is: "ask", hurry: true });
    else this.#join();
  }

  close(): void {
    for (const woken of WOKEN) globalThis.removeEventListener?.(woken, this.#look, true);
    clearTimeout(this.#timer);
    this.#closed.abort();
    this.#resign();
    this.#channel?.postMessage({ is: "want", tab: this.#tab, scopes: [] } satisfies Said);
    this.#channel?.close();
  }

  async #join(): Promise<void> {
    clearTimeout(this.#timer);
    let name: string;
    try {
      name = await this.#name();
    } catch (reason) {
      if (this.#gone || this.#channel) return;
      const error = reason instanceof ScenewireError ? reason : new ScenewireError(String(reason), "failed");
      this.#events.state({ status: "offline", transport: null, error });
      if (error.code !== "signed_out") this.#timer = setTimeout(() => this.#join(), RETRY_MS);
      return;
    }
    if (this.#gone || this.#channel) return;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => {
      this.#heard = Date.now();
      this.#hear(data);
    };
    this.#heard = Date.now();
    // held for as long as this tab lives: whoever leads learns of its end by getting it
    this.#hold(`${name} ${this.#tab}`, {}, () => this.#tellWants(true));
    this.#standBy(name);
    const look = () => {
      this.#timer = setTimeout(look, LOOK_MS);
      if (Date.now() - this.#heard > SILENCE_MS) this.#look();
    };
    look();
  }

  get #gone(): boolean {
    return this.#closed.signal.aborted;
  }

  /** Holds a lock until this tab is closed, or another has stolen it. */
  async #hold(name: string, options: LockOptions, held: () => void): Promise<void> {
    const { signal } = this.#closed;
    const keep = () =>
      new Promise<void>((done) => {
        if (signal.aborted) return done();
        signal.addEventListener("abort", () => done());
        held();
      });
    // a lock that is stolen while it is held, or called off while it is waited for, says so by an error
    await this.#locks.request(name, options, keep).catch(() => {});
  }

  async #standBy(name: string): Promise<void> {
    while (!this.#gone) {
      await this.#hold(name, { signal: this.#closed.signal }, () => this.#lead(name));
      // stolen: this tab slept, or was too busy to answer
      this.#resign();
      if (!this.#gone) this.#tellWants();
    }
  }

  #lead(name: string): void {
    if (this.#leader) return;
    const { signal } = this.#closed;
    const say = (said: Said) => this.#say(said);
    this.#leader = new Leader(this.#open, say, async (tab) => {
      if (tab === this.#tab) await new Promise((done) => signal.addEventListener("abort", done));
      else await this.#locks.request(`${name} ${tab}`, { signal }, () => {}).catch(() => {});
    });
    this.#tellWants();
    this.#say({ is: "lead" });
  }

  #resign(): void {
    this.#leader?.close();
    this.#leader = null;
  }

  #tellWants(isNew = false): void {
    const scopes = Array.from(this.#events.scopes(), ({ scope }) => scope);
    this.#say({ is: "want", tab: this.#tab, scopes, isNew });
  }

  /** To everybody, this tab among them. */
  #say(said: Said): void {
    if (this.#gone) return;
    this.#channel?.postMessage(said);
    this.#hear(said);
  }

  #hear(said: Said): void {
    if (said.is === "frame") this.#events.frame(said.frame);
    else if (said.is === "state") this.#events.state({ ...said.state, error: errorOf(said.error) });
    else if (said.is !== "lead") this.#leader?.hear(said);
    else if (!this.#leader) this.#tellWants();
  }

  /** Finds out whether somebody leads; a tab that nobody looks at need not know. */
  readonly #look = (): void => {
    if (this.#leader || !this.#channel || globalThis.document?.hidden) return;
    const asked = Date.now();
    const { name } = this.#channel;
    this.#say({ is: "ask" });
    setTimeout(() => {
      if (this.#heard >= asked || this.#leader || this.#gone) return;
      this.#hold(name, { steal: true }, () => this.#lead(name)).then(() => this.#resign());
    }, ANSWER_MS);
  };
}
