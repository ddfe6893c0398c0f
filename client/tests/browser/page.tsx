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
  var renders: number;
  var painted: number;
}

const { pushUrl, apiUrl, chapterId, tokens, share } = globalThis.scenewireTest;
// the last one stays
const getToken = () => (tokens.length > 1 ? tokens.shift()! : tokens[0]!);

globalThis.scenewire = connect({ pushUrl, apiUrl, getToken, fallback, share: share ? tabs() : undefined });
globalThis.renders = 0;
globalThis.painted = 0;
const count = () => {
  globalThis.painted += 1;
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
  globalThis.renders += 1;
  return (
    <ol data-ready={chapter.ready}>
      {chapter.scenes.map(({ sceneNumber, latest, current }) => (
        <li key={sceneNumber} data-scene={sceneNumber} data-status={latest.status}>
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
