import type { ChapterWords } from "./config.js";
import { phaseWords, type Scene } from "./phase.js";
import type { Choices } from "./scenes.js";
import { SHAPES, STYLES } from "./words.js";

/** The chapter's name, and all of its scenes at a glance. */
export function ChapterHead({ words, scenes, now }: { words: ChapterWords | null; scenes: Scene[]; now: number }) {
  const ready = scenes.filter(({ current }) => current).length;
  const busy = scenes.filter(({ phase }) => phase === "busy").length;
  const broken = scenes.filter(({ phase }) => phase === "failed").length;
  const rest = [busy && `${busy} in progress`, broken && `${broken} failed`].filter(Boolean).join(", ");
  return (
    <section className="chapter" aria-labelledby="chapter-title">
      <div>
        <p className="eyebrow">{words ? `${words.book} · ${words.chapter}` : "Scenewire Studio"}</p>
        <h1 id="chapter-title">{words?.title ?? "A chapter of your own"}</h1>
        <p className="lead">
          {words
            ? `by ${words.author}, told in ${words.scenes.length} scenes. Ask for their pictures and watch them arrive.`
            : "Write the scenes, and ask for their pictures."}
        </p>
      </div>
      {scenes.length > 0 && (
        <div className="tally">
          <p className="tally-words">
            <strong id="tally-count">{`${ready} of ${scenes.length}`}</strong>{" "}
            <span>
              {scenes.length === 1 ? "picture" : "pictures"} ready{rest && ` · ${rest}`}
            </span>
          </p>
          <ol className="segments" aria-label="Scenes at a glance">
            {scenes.map((scene) => {
              const said = `Scene ${scene.text.number}: ${phaseWords(scene, now)}`;
              return (
                <li key={scene.text.number}>
                  <a
                    href={`#scene-${scene.text.number}`}
                    data-phase={scene.phase}
                    data-picture={scene.current ? "yes" : "no"}
                    title={said}
                  >
                    <span className="visually-hidden">{said}</span>
                  </a>
                </li>
              );
            })}
          </ol>
        </div>
      )}
    </section>
  );
}

interface OrderProps {
  scenes: Scene[];
  choices: Choices;
  onChoose(choices: Partial<Choices>): void;
  onRequestAll(): void;
}

/** Style and shape of the chapter, and the one button for all of its pictures. */
export function Order({ scenes, choices, onChoose, onRequestAll }: OrderProps) {
  const able = scenes.filter(({ text }) => text.description);
  const missing = able.filter(({ current, phase }) => !current && phase !== "busy").length;
  const busy = scenes.filter(({ phase }) => phase === "busy").length;
  const off = able.length === 0 || (missing === 0 && busy > 0) || able.every(({ phase }) => phase === "loading");
  return (
    <form
      className="order"
      aria-label="All scenes"
      onSubmit={(event) => {
        event.preventDefault();
        if (!off) onRequestAll();
      }}
    >
      <Select
        id="all-style"
        label="Style"
        choices={STYLES}
        value={choices.style}
        onChoose={(style) => onChoose({ style })}
      />
      <Select
        id="all-ratio"
        label="Shape"
        choices={SHAPES}
        value={choices.shape}
        onChoose={(shape) => onChoose({ shape })}
      />
      <p className="order-note">For every scene that has no choice of its own.</p>
      <button className="primary large" id="request-all" type="submit" aria-disabled={off}>
        {allWords(able.length, missing, busy)}
      </button>
    </form>
  );
}

function allWords(able: number, missing: number, busy: number): string {
  if (able === 0) return "Make all pictures";
  if (missing === able) return missing === 1 ? "Make the picture" : `Make all ${missing} pictures`;
  if (missing) return `Make the ${missing === 1 ? "missing picture" : `${missing} missing pictures`}`;
  return busy ? `Making ${busy === 1 ? "a picture" : `${busy} pictures`}…` : "Make all again";
}

interface SelectProps {
  id: string;
  label: string;
  choices: [string, string][];
  value: string;
  onChoose(value: string): void;
}

function Select({ id, label, choices, value, onChoose }: SelectProps) {
  return (
    <div className="field">
      <label htmlFor={id}>{label}</label>
      <select id={id} value={value} onChange={(event) => onChoose(event.target.value)}>
        {choices.map(([name, words]) => (
          <option key={name} value={name}>
            {words}
          </option>
        ))}
      </select>
    </div>
  );
}
