// Who is asking: the token that config.json hands out, or one that the person pastes. It never leaves this tab.

import type { GetToken } from "@scenewire/client";
import { type Config, loadConfig } from "./config.js";
import { listeners } from "./listeners.js";

const KEPT = "scenewire.token";
/** A token that is refused with more time left than this was not about to end: it is not accepted here. */
const ABOUT_TO_END_MS = 60_000;

function claims(token: string): { sub?: string; exp?: number } {
  try {
    return JSON.parse(atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {};
  }
}

function kept(): string | null {
  try {
    return sessionStorage.getItem(KEPT);
  } catch {
    return null;
  }
}

function keep(token: string | null): void {
  try {
    if (token) sessionStorage.setItem(KEPT, token);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // without storage the token lives as long as the page
  }
}

export class SignIn {
  /** What is asked of the person, and where the answer goes; null while nothing is asked. */
  question: { reason: string; answer(token: string): void } | null = null;
  readonly #changes = listeners();
  readonly subscribe = this.#changes.subscribe;
  #last: string | null = null;
  #config: Config;

  constructor(config: Config) {
    this.#config = config;
  }

  readonly getToken: GetToken = async ({ refresh }) => {
    this.#last = refresh ? await this.#next() : (this.#config.token ?? kept() ?? (await this.#ask(FIRST)));
    return this.#last;
  };

  async #next(): Promise<string> {
    const last = this.#last ?? "";
    const { sub, exp = Number.POSITIVE_INFINITY } = claims(last);
    const config = await loadConfig().catch(() => this.#config);
    // another person's token is for a page opened anew
    if (config.token && config.token !== last && (!sub || claims(config.token).sub === sub)) {
      this.#config = config;
      return config.token;
    }
    const left = exp * 1000 - Date.now();
    if (left > 0 && left <= ABOUT_TO_END_MS) return last;
    keep(null);
    return this.#ask(AGAIN);
  }

  #ask(reason: string): Promise<string> {
    return new Promise((done) => {
      const answer = (pasted: string) => {
        const token = pasted.trim().replace(/^Bearer\s+/i, "");
        if (!token) return;
        keep(token);
        this.question = null;
        this.#changes.tell();
        done(token);
      };
      this.question = { reason, answer };
      this.#changes.tell();
    });
  }
}

const FIRST = "This studio shows you your own pictures. Paste your access token to open it.";
const AGAIN = "Your access token has expired or is not accepted here. Paste a new one to go on.";
