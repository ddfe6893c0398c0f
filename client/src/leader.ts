import {
  type Line,
  type LineEvents,
  type LineState,
  ScenewireError,
  type Scope,
  type ServerFrame,
} from "@scenewire/client";

/** What tabs say to each other. No token is among it. */
export type Said =
  /** Whoever leads is new: everybody say what you watch. */
  | { is: "lead" }
  /** What a tab watches, all of it; one that is new has seen nothing of it. */
  | { is: "want"; tab: string; scopes: Scope[]; isNew?: boolean }
  /** A tab watches one more, or wants it whole again. */
  | { is: "watch"; tab: string; scope: Scope }
  | { is: "drop"; tab: string; id: string }
  /** Is somebody leading? The answer is the state. */
  | { is: "ask"; hurry?: boolean }
  | { is: "state"; state: Omit<LineState, "error">; error: ToldError | null }
  | { is: "frame"; frame: ServerFrame };

/** An error as it passes from tab to tab, where a class of ours would not. */
type ToldError = Pick<ScenewireError, "message" | "code" | "status">;

export const errorOf = (told: ToldError | null): ScenewireError | null =>
  told && new ScenewireError(told.message, told.code, told.status);

interface Tracked {
  readonly scope: Scope;
  cursor?: string;
  /** Who has sent its snapshot; before that, a cursor would skip what was not seen yet. */
  from?: object;
}

/** The one tab that has the line: it watches what any tab wants, and tells everybody what comes. */
export class Leader {
  readonly #line: Line;
  readonly #say: (said: Said) => void;
  readonly #awaitEnd: (tab: string) => Promise<void>;
  readonly #tracked = new Map<string, Tracked>();
  readonly #wanted = new Map<string, Map<string, Scope>>();
  #state: LineState = { status: "connecting", transport: null, error: null };

  /** `awaitEnd` waits until a tab is there no more. */
  constructor(open: (events: LineEvents) => Line, say: (said: Said) => void, awaitEnd: (tab: string) => Promise<void>) {
    this.#say = say;
    this.#awaitEnd = awaitEnd;
    this.#line = open({
      scopes: () => this.#tracked.values(),
      frame: (frame, from) => {
        this.#track(frame, from);
        say({ is: "frame", frame });
      },
      state: (state) => {
        this.#state = state;
        this.#tell();
      },
    });
  }

  close(): void {
    this.#line.close();
  }

  hear(said: Said): void {
    if (said.is === "ask") {
      if (said.hurry) this.#line.hurry();
      this.#tell();
    } else if (said.is === "watch") {
      this.#watch(said.tab, said.scope, true);
    } else if (said.is === "drop") this.#drop(said.tab, said.id);
    else if (said.is === "want") {
      const { tab, scopes } = said;
      for (const id of [...this.#wants(tab).keys()]) if (!scopes.some((scope) => scope.id === id)) this.#drop(tab, id);
      for (const scope of scopes) this.#watch(tab, scope, said.isNew);
      this.#tell();
    }
  }

  #watch(tab: string, scope: Scope, whole = false): void {
    this.#wants(tab).set(scope.id, scope);
    const tracked = this.#tracked.get(scope.id);
    // what is on its way to one is on its way to all
    if (tracked && !(whole && tracked.from)) return;
    this.#tracked.set(scope.id, { scope });
    this.#line.watch(scope);
  }

  #wants(tab: string): Map<string, Scope> {
    let wants = this.#wanted.get(tab);
    if (!wants) {
      wants = new Map();
      this.#wanted.set(tab, wants);
      this.#awaitEnd(tab).then(() => {
        for (const id of [...wants!.keys()]) this.#drop(tab, id);
        this.#wanted.delete(tab);
      });
    }
    return wants;
  }

  #drop(tab: string, id: string): void {
    const wants = this.#wanted.get(tab);
    const scope = wants?.get(id);
    wants?.delete(id);
    if (!scope || [...this.#wanted.values()].some((others) => others.has(id))) return;
    this.#tracked.delete(id);
    this.#line.unwatch(scope);
  }

  #tell(): void {
    const { error, ...state } = this.#state;
    const told = error && { message: error.message, code: error.code, status: error.status };
    this.#say({ is: "state", state, error: told });
  }

  /** Keeps cursors, as a client does for itself. */
  #track(frame: ServerFrame, from: object | undefined): void {
    if (frame.type === "status") {
      const { chapter_id, record_id } = frame.image;
      for (const tracked of this.#tracked.values()) {
        const { scope } = tracked;
        const concerned = scope.record_id === record_id || (scope.chapter_id && scope.chapter_id === chapter_id);
        if (concerned && tracked.from === from) tracked.cursor = frame.cursor;
      }
    } else if (frame.type === "snapshot" || frame.type === "cursor") {
      const tracked = this.#tracked.get(frame.id);
      if (!tracked) return;
      tracked.cursor = frame.cursor || tracked.cursor;
      if (frame.type === "snapshot") tracked.from = from;
    }
  }
}
