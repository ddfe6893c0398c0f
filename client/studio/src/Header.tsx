import { useConnection } from "@scenewire/client/react";
import { type Theme, useTheme } from "./theme.js";

const WORDS = { connecting: "Connecting", live: "Live", polling: "Polling", offline: "Offline" };
const HELP = {
  connecting: "Looking for the line.",
  live: "Changes arrive the moment they happen.",
  stream: "No socket gets through: changes arrive by a stream, the moment they happen.",
  polling: "The live line is down: changes are asked for until it is back.",
  offline: "The service cannot be reached. What is being made goes on without this page.",
};
const THEMES: Record<Theme, string> = { system: "as the system", light: "light", dark: "dark" };
const ICONS: Record<Theme, string> = {
  system: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zm0 2a7 7 0 0 1 0 14z",
  light:
    "M12 7a5 5 0 1 0 0 10 5 5 0 0 0 0-10zM11 1h2v3h-2zm0 19h2v3h-2zM1 11h3v2H1zm19 0h3v2h-3zM4.2 2.8l2.1 2.1-1.4 1.4-2.1-2.1zm14.9 14.9 2.1 2.1-1.4 1.4-2.1-2.1zM2.8 19.8l2.1-2.1 1.4 1.4-2.1 2.1zM17.7 4.9l2.1-2.1 1.4 1.4-2.1 2.1z",
  dark: "M20 15.3A9 9 0 0 1 8.7 4 8.5 8.5 0 1 0 20 15.3z",
};

export function Header() {
  const [theme, nextTheme] = useTheme();
  return (
    <header className="bar">
      <p className="brand">
        <img src="studio/icon.svg" alt="" width="28" height="28" />
        <span>Scenewire</span> <span className="brand-room">Studio</span>
      </p>
      <div className="line">
        <Badge />
        <button
          type="button"
          className="quiet icon"
          aria-label={`Colours: ${THEMES[theme]}`}
          title={`Colours: ${THEMES[theme]}`}
          onClick={nextTheme}
        >
          <svg viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
            <path d={ICONS[theme]} fill="currentColor" fillRule="evenodd" />
          </svg>
        </button>
      </div>
    </header>
  );
}

function Badge() {
  const { status, transport, lag, error, reconnect } = useConnection();
  const quick = status === "live" && lag !== null ? ` The last one took ${Math.round(lag)} ms.` : "";
  return (
    <>
      <p
        className="chip"
        id="chip"
        data-state={status}
        data-transport={transport ?? undefined}
        role="status"
        title={error ? error.message : HELP[transport === "sse" ? "stream" : status] + quick}
      >
        <span className="dot" aria-hidden="true" />
        <span className="visually-hidden">Connection: </span>
        <span>{WORDS[status]}</span>
      </p>
      {(status === "polling" || status === "offline") && (
        <button type="button" className="quiet small" onClick={reconnect}>
          Reconnect
        </button>
      )}
    </>
  );
}
