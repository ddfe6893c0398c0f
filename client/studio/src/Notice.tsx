import type { ReactNode } from "react";

/** In place of the scenes: what is the matter, and what to do. */
export function Notice({ title, children }: { title: string; children: ReactNode }) {
  return (
    <section className="notice" aria-labelledby="notice-title">
      <h2 id="notice-title">{title}</h2>
      {children}
    </section>
  );
}

/** Asks for the token. It is written nowhere but into this tab. */
export function AskToken({ reason, onAnswer }: { reason: string; onAnswer: (token: string) => void }) {
  return (
    <Notice title="Who is asking?">
      <p>{reason}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          const field = event.currentTarget.elements.namedItem("token") as HTMLInputElement;
          onAnswer(field.value);
        }}
      >
        <label htmlFor="token">Access token</label>
        <div className="token-row">
          <input
            id="token"
            name="token"
            type="password"
            autoComplete="off"
            spellCheck={false}
            required
            // biome-ignore lint/a11y/noAutofocus: it is the one thing to do here
            autoFocus
            aria-describedby="token-help"
          />
          <button className="primary" type="submit">
            Open the studio
          </button>
        </div>
        <p className="help" id="token-help">
          A signed token (JWT) from whoever runs this service. It stays in this tab and is forgotten when you close it.
        </p>
      </form>
    </Notice>
  );
}
