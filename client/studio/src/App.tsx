import { useChapter } from "@scenewire/client/react";
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from "react";
import { ChapterHead, Order } from "./ChapterHead.js";
import type { ChapterWords } from "./config.js";
import { Gallery } from "./Gallery.js";
import { Header } from "./Header.js";
import { useAnnouncer, useEvery, useNow } from "./hooks.js";
import { AskToken } from "./Notice.js";
import { newsSince } from "./news.js";
import type { Scene } from "./phase.js";
import { useRequests } from "./requests.js";
import { SceneCard } from "./SceneCard.js";
import { Story } from "./Story.js";
import type { Scenes, SceneWords } from "./scenes.js";
import type { SignIn } from "./signin.js";
import { useScenes } from "./useScenes.js";
import { isUnderWay } from "./words.js";

const PLACES_EVERY_MS = 8_000;
const AT_ONCE = 6;

interface Props {
  chapterId: string;
  words: ChapterWords | null;
  scenes: Scenes;
  signIn: SignIn;
}

export function App({ chapterId, words, scenes, signIn }: Props) {
  const chapter = useChapter(chapterId);
  const texts = useSyncExternalStore(scenes.subscribe, scenes.all);
  const choices = useSyncExternalStore(scenes.subscribe, scenes.choices);
  const question = useSyncExternalStore(signIn.subscribe, () => signIn.question);
  const requests = useRequests(chapter, scenes);
  const [said, say] = useAnnouncer();
  const [editing, setEditing] = useState<number | null>(null);
  const [opened, setOpened] = useState<number | null>(null);
  const [told, setTold] = useState<number | null>(null);

  // scenes that only the service knows get a place on the page
  useEffect(() => scenes.ensure(chapter.scenes.map(({ sceneNumber }) => sceneNumber)), [scenes, chapter.scenes]);

  const all = useScenes(chapter, texts, requests);
  const isBusy = all.some(({ phase }) => phase === "busy");
  const now = useNow(isBusy);
  // places in the queue are worked out when they are read, so no frame carries them
  useEvery(
    PLACES_EVERY_MS,
    all.some(({ latest }) => isUnderWay(latest) && latest.stage === "queued"),
    chapter.refresh,
  );
  useNews(all, say);
  useTitle(all, words);

  const ask = async (scene: Scene) => {
    const error = await requests.ask(scene.text);
    if (error?.fields.length) setEditing(scene.text.number);
    if (error) say(`Scene ${scene.text.number}: ${error.message}`);
  };
  const latestAsk = useRef(ask);
  useEffect(() => {
    latestAsk.current = ask;
  });

  const onRequest = useCallback((scene: Scene) => {
    if (scene.text.description) latestAsk.current(scene);
    else setEditing(scene.text.number);
  }, []);
  const onSave = useCallback(
    (number: number, changed: SceneWords) => {
      scenes.save(number, changed);
      setEditing(null);
    },
    [scenes],
  );
  const latestAll = useRef(all);
  useEffect(() => {
    latestAll.current = all;
  });
  const onRestore = useCallback(
    (number: number) => {
      scenes.restore(number, Boolean(latestAll.current.find(({ text }) => text.number === number)?.latest));
      setEditing(null);
    },
    [scenes],
  );

  async function requestAll(): Promise<void> {
    const free = all.filter(({ phase, text }) => phase !== "busy" && text.description);
    const missing = free.filter(({ current }) => !current);
    const wanted = missing.length ? missing : free;
    say(`${wanted.length} ${wanted.length === 1 ? "picture" : "pictures"} requested`);
    const queue = [...wanted];
    const next = async () => {
      for (let scene = queue.shift(); scene; scene = queue.shift()) await ask(scene);
    };
    await Promise.all(Array.from({ length: AT_ONCE }, next));
  }

  const story = all.find(({ text }) => text.number === told);
  return (
    <>
      {!question && (
        <a className="skip" href="#scenes">
          Skip to the scenes
        </a>
      )}
      <Header />
      <main>
        <ChapterHead words={words} scenes={question ? NONE : all} now={now} />
        {question ? (
          <AskToken reason={question.reason} onAnswer={question.answer} />
        ) : (
          <>
            <Order
              scenes={all}
              choices={choices}
              onChoose={(changed) => scenes.choose(changed)}
              onRequestAll={requestAll}
            />
            {all.length === 0 && (
              <section className="blank">
                <h2>No scenes yet</h2>
                <p>Describe what is to be seen, in one to three sentences, and ask for its picture.</p>
              </section>
            )}
            <ol className="cards" id="scenes" tabIndex={-1} aria-label="Scenes">
              {all.map((scene) => (
                <SceneCard
                  key={scene.text.number}
                  scene={scene}
                  choices={choices}
                  isEditing={editing === scene.text.number}
                  onEdit={setEditing}
                  onSave={onSave}
                  onRestore={onRestore}
                  onRequest={onRequest}
                  onOpen={setOpened}
                  onStory={setTold}
                />
              ))}
              <li className="add">
                <button type="button" onClick={() => setEditing(scenes.add())}>
                  Add a scene
                </button>
              </li>
            </ol>
          </>
        )}
      </main>
      <footer className="foot">
        <p>
          Pictures are stored as they were made. Making one again keeps the one you have until the new one is ready.
        </p>
      </footer>
      {opened !== null && (
        <Gallery scenes={all} number={opened} onMove={setOpened} onStory={setTold} onClose={() => setOpened(null)} />
      )}
      {story?.latest && <Story scene={story} onClose={() => setTold(null)} />}
      <p className="visually-hidden" id="announcer" role="status" aria-live="polite">
        {said}
      </p>
    </>
  );
}

const NONE: Scene[] = [];

function useNews(scenes: Scene[], say: (text: string) => void): void {
  const before = useRef(scenes);
  useEffect(() => {
    for (const news of newsSince(before.current, scenes)) say(news);
    before.current = scenes;
  }, [scenes, say]);
}

function useTitle(scenes: Scene[], words: ChapterWords | null): void {
  const ready = useMemo(() => scenes.filter(({ current }) => current).length, [scenes]);
  const name = words?.title ?? "A chapter of your own";
  useEffect(() => {
    document.title = `${ready ? `(${ready}/${scenes.length}) ` : ""}${name} · Scenewire Studio`;
  }, [ready, scenes.length, name]);
}
