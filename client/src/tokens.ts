import { type GetToken, ScenewireError } from "./options.js";

/** Before this long before its end a token is no longer begun with. */
const MARGIN_MS = 10_000;

/** The claims of a JWT, unchecked; none of what cannot be read. */
export function claims(token: string): { sub?: string; exp?: number } {
  try {
    return JSON.parse(atob(token.split(".")[1]!.replace(/-/g, "+").replace(/_/g, "/")));
  } catch {
    return {};
  }
}

export interface Tokens {
  /** A token that has time left; `refused` is one that has not, whatever its claims say. */
  get(refused?: string): Promise<string>;
}

/** One token for everybody here, asked for once at a time. Throws `ScenewireError` `signed_out` where there is none. */
export function tokensOf(getToken: GetToken): Tokens {
  let token: string | null = null;
  let asked: Promise<string> | null = null;

  async function ask(refresh: boolean): Promise<string> {
    token = await getToken({ refresh });
    if (!token) throw new ScenewireError("Nobody is signed in.", "signed_out", 401);
    return token;
  }

  return {
    get(refused) {
      if (asked) return asked;
      if (token && token !== refused && !((claims(token).exp ?? Infinity) * 1000 < Date.now() + MARGIN_MS)) {
        return Promise.resolve(token);
      }
      asked = ask(token !== null).finally(() => {
        asked = null;
      });
      return asked;
    },
  };
}
