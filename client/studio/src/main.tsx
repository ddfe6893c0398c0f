import { connect } from "@scenewire/client";
import { fallback } from "@scenewire/client/fallback";
import { ScenewireProvider } from "@scenewire/client/react";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App.js";
import { isWebAddress, loadConfig, openChapter } from "./config.js";
import { Notice } from "./Notice.js";
import { Scenes } from "./scenes.js";
import { SignIn } from "./signin.js";
import { installSimulator } from "./simulator/panel.js";
import "./page.css";
import "./cards.css";
import "./gallery.css";
import "./story.css";
import "./simulator/panel.css";

const root = createRoot(document.getElementById("root")!);

async function start(): Promise<void> {
  let config: Awaited<ReturnType<typeof loadConfig>>;
  try {
    config = await loadConfig();
  } catch {
    root.render(
      <main>
        <Notice title="The studio cannot reach its service">
          <p>Check that Scenewire is running and that you are connected, then try again.</p>
          <button type="button" className="primary" onClick={start}>
            Try again
          </button>
        </Notice>
      </main>,
    );
    return;
  }
  const signIn = new SignIn(config);
  const client = connect({ pushUrl: config.push_url, apiUrl: config.api_url, getToken: signIn.getToken, fallback });
  const { chapterId, words } = await openChapter(config);
  const scenes = new Scenes(chapterId, words);
  if (isWebAddress(config.simulator_url)) installSimulator(config.simulator_url);
  root.render(
    <StrictMode>
      <ScenewireProvider client={client}>
        <App chapterId={chapterId} words={words} scenes={scenes} signIn={signIn} />
      </ScenewireProvider>
    </StrictMode>,
  );
}

await start();
