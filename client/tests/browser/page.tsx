// The page of tests/browser/test_client.py: one chapter, on everything that the package has.
// What it is to do stands in `scenewireTest`, which the test puts there before it loads.

import { type ChapterView, connect, type Scenewire } from "@scenewire/client";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { fallback } from "../../src/fallback.js";
import { ScenewireProvider, useChapter, useConnection } from "../../src/react.js";
import { tabs } from "../../src/tabs.js";

interface Wanted {
  pushUrl: string;
  apiUrl: string;
  chapterId: string;
  tokens: string[];
  share: boolean;
}

declare global {
  var scenewireTest: Wanted;
  var scenewire: Scenewire;
  var view: ChapterView;
  /** Of each time from one animation frame to the next: messages of sockets, and how often the chapter was rendered. */
  var painted: { ms: number; messages: number; renders: number }[];
  /** Every socket that was opened. */
  var sockets: WebSocket[];
}

const { pushUrl, apiUrl, chapterId, tokens, share } = globalThis.scenewireTest;
// the last one stays
const getToken = () => (tokens.length > 1 ? tokens.shift()! : tokens[0]!);

let messages = 0;
let renders = 0;

globalThis.sockets = [];
class Socket extends WebSocket {
  constructor(...opened: ConstructorParameters<typeof WebSocket>) {
    super(...opened);
    globalThis.sockets.push(this);
    this.addEventListener("message", () => {
      messages += 1;
    });
  }
}

const sharing = share ? tabs() : undefined;
globalThis.scenewire = connect({ pushUrl, apiUrl, getToken, fallback, share: sharing, WebSocket: Socket });

globalThis.painted = [];
let begun = performance.now();
// A frame's callbacks run in the order in which they were asked for. This one is always the first, since it asks again
// before any other can: what a frame draws belongs to the time after it.
const count = () => {
  const now = performance.now();
  globalThis.painted.push({ ms: now - begun, messages, renders });
  messages = renders = 0;
  begun = now;
  requestAnimationFrame(count);
};
requestAnimationFrame(count);

function Badge() {
  const { status, transport, error } = useConnection();
  return (
    <output data-status={status} data-transport={transport} data-error={error?.code}>
      {status}
    </output>
  );
}

function Chapter() {
  const chapter = useChapter(chapterId);
  globalThis.view = chapter;
  renders += 1;
  return (
    <ol data-ready={chapter.ready}>
      {chapter.scenes.map(({ sceneNumber, latest, current }) => (
        <li key={sceneNumber} data-scene={sceneNumber} data-status={latest.status} data-version={latest.version}>
          {current?.image_url && <img src={current.image_url} alt={`Scene ${sceneNumber}`} width="160" />}
        </li>
      ))}
    </ol>
  );
}

createRoot(document.querySelector("main")!).render(
  <StrictMode>
    <ScenewireProvider client={globalThis.scenewire}>
      <Badge />
      <Chapter />
    </ScenewireProvider>
  </StrictMode>,
);
