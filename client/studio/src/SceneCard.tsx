import { memo, useEffect, useRef, useState } from "react";
import { Editor } from "./Editor.js";
import { useNow } from "./hooks.js";
import { Picture } from "./Picture.js";
import { faultWords, type Scene } from "./phase.js";
import type { Choices, SceneWords } from "./scenes.js";
import { isUnderWay, labelOf, made, ratioOf, SHAPES, STYLES, span, underWay } from "./words.js";

const BADGES = { loading: "", empty: "", busy: "In progress", failed: "Failed", ready: "" };
const BLANKS = {
  loading: "Looking for the picture",
  empty: "No picture yet",
  busy: "",
  failed: "No picture",
  ready: "",
};
const TALLEST = 3 / 4;
const WIDE = 1.2;

interface Props {
  scene: Scene;
  choices: Choices;
  isEditing: boolean;
  onEdit(number: number | null): void;
  onSave(number: number, words: SceneWords): void;
  onRestore(number: number): void;
  onRequest(scene: Scene): void;
  onOpen(number: number): void;
  onStory(number: number): void;
}

/** One scene: its picture, what is going on with it, its words, and what can be done. */
export const SceneCard = memo(function SceneCard(props: Props) {
  const { scene, choices, isEditing } = props;
  const { text, latest, current, phase } = scene;
  const { number } = text;
  const [drawn, setDrawn] = useState<number | null>(null);
  const edit = useRef<HTMLButtonElement>(null);
  const wasEditing = useRef(isEditing);
  const ratio = (current && drawn) || ratioOf(text.shape ?? choices.shape);

  useEffect(() => {
    if (wasEditing.current && !isEditing) edit.current?.focus();
    wasEditing.current = isEditing;
  }, [isEditing]);

  const action =
    phase === "failed" ? "Try again" : phase === "busy" ? "Making…" : current ? "Make again" : "Make picture";
  const off = phase === "busy" || phase === "loading";
  return (
    <li
      className="card"
      id={`scene-${number}`}
      data-phase={phase}
      data-picture={current ? "yes" : "no"}
      data-stage={phase === "busy" ? (latest?.stage ?? "queued") : ""}
      data-whole={ratio < WIDE ? "yes" : "no"}
      data-editing={isEditing || undefined}
    >
      <article aria-labelledby={`scene-${number}-title`}>
        <div className="frame" style={{ aspectRatio: Math.max(TALLEST, ratio) }}>
          {!current && (
            <>
              <p className="numeral" aria-hidden="true">
                {number}
              </p>
              <p className="blank-words">{BLANKS[phase]}</p>
            </>
          )}
          <Picture
            image={current}
            alt={text.description || `Picture of scene ${number}`}
            label={`Open the picture of scene ${number} large`}
            onOpen={() => props.onOpen(number)}
            onRatio={setDrawn}
          />
          {phase === "busy" && <Progress scene={scene} />}
        </div>
        <div className="body">
          <p className="eyebrow">
            <span>Scene {number}</span>
            <span className="badge">{phase === "busy" && current ? "New picture in progress" : BADGES[phase]}</span>
          </p>
          <h2 id={`scene-${number}-title`} dir="auto">
            {text.title}
          </h2>
          {!isEditing && <Words number={number} description={text.description} />}
          {phase === "failed" && <p className="fault">{faultWords(scene)}</p>}
          {isEditing ? (
            <Editor
              text={text}
              faults={scene.refusal?.fields ?? []}
              onSave={(words) => props.onSave(number, words)}
              onRestore={() => props.onRestore(number)}
              onClose={() => props.onEdit(null)}
            />
          ) : (
            <>
              <p className="look">{phase === "ready" && current ? made(current) : look(scene, choices)}</p>
              <div className="actions">
                {/* disabled would throw the keyboard's focus off the button */}
                <button
                  type="button"
                  className={phase === "ready" ? "primary make again" : "primary make"}
                  aria-disabled={off}
                  aria-label={`${action.replace("…", "")}: scene ${number}`}
                  onClick={() => off || props.onRequest(scene)}
                >
                  {action}
                </button>
                <button
                  ref={edit}
                  type="button"
                  className="quiet edit"
                  aria-label={`Edit scene ${number}`}
                  onClick={() => props.onEdit(number)}
                >
                  Edit
                </button>
                {latest && (
                  <button
                    type="button"
                    className="quiet story-button"
                    aria-label={`Details of scene ${number}: prompt, model and attempts`}
                    onClick={() => props.onStory(number)}
                  >
                    Details
                  </button>
                )}
              </div>
            </>
          )}
        </div>
      </article>
    </li>
  );
});

function look({ text }: Scene, choices: Choices): string {
  const parts = [labelOf(STYLES, text.style ?? choices.style), labelOf(SHAPES, text.shape ?? choices.shape)];
  return [...parts, text.customPrompt && "own prompt", text.changed && "edited"].filter(Boolean).join(" · ");
}

function Words({ number, description }: { number: number; description: string }) {
  const [whole, setWhole] = useState(false);
  const [long, setLong] = useState(false);
  const place = useRef<HTMLParagraphElement>(null);

  // cut or not is a matter of the card's width, so it is measured
  useEffect(() => {
    const words = place.current;
    if (!words || whole) return;
    const measure = new ResizeObserver(() => setLong(words.scrollHeight > words.clientHeight + 1));
    measure.observe(words);
    return () => measure.disconnect();
  }, [whole]);

  return (
    <>
      <p
        ref={place}
        className={description ? "description" : "description missing"}
        id={`scene-${number}-words`}
        dir="auto"
        data-cut={!whole || undefined}
      >
        {description || "This scene has no words yet. Edit it to say what is to be seen."}
      </p>
      {long && (
        <button
          type="button"
          className="whole"
          aria-expanded={whole}
          aria-controls={`scene-${number}-words`}
          aria-label={whole ? `Show less of scene ${number}` : `Show all of scene ${number}`}
          onClick={() => setWhole(!whole)}
        >
          {whole ? "Show less" : "Show all"}
        </button>
      )}
    </>
  );
}

function Progress({ scene: { latest, text } }: { scene: Scene }) {
  const now = useNow(true);
  const going = isUnderWay(latest);
  const { headline, detail, progress } = going
    ? underWay(latest, now)
    : { headline: "Sending the request", detail: "", progress: 0 };
  const since = going && latest.created_at ? (now - Date.parse(latest.created_at)) / 1000 : 0;
  return (
    <div className="overlay">
      <p className="stage">
        <span className="headline">{headline}</span>
        <span className="percent">{progress ? `${progress}%` : ""}</span>
      </p>
      <div
        className="progress"
        role="progressbar"
        aria-label={`Scene ${text.number}`}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={progress}
        aria-valuetext={`${headline}, ${progress}%`}
      >
        <div className="fill" style={{ width: `${Math.max(2, progress)}%` }} />
      </div>
      <p className="detail">{[detail, since >= 3 && `${span(since)} so far`].filter(Boolean).join(" · ")}</p>
    </div>
  );
}
