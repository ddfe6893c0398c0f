import { type KeyboardEvent, useEffect, useRef, useState } from "react";
import { Compare } from "./Compare.js";
import { isWebAddress } from "./config.js";
import { usePictures } from "./history.js";
import { useModal } from "./hooks.js";
import type { Scene } from "./phase.js";
import { made } from "./words.js";

interface Props {
  scenes: Scene[];
  number: number;
  onMove(number: number): void;
  onStory(number: number): void;
  onClose(): void;
}

/** The whole screen for one picture, with the others of the chapter below it. */
export function Gallery({ scenes, number, onMove, onStory, onClose }: Props) {
  const modal = useModal(onClose);
  const [comparing, setComparing] = useState(false);
  const film = useRef<HTMLOListElement>(null);
  const shown = scenes.filter(({ current }) => isWebAddress(current?.image_url));
  const at = shown.findIndex(({ text }) => text.number === number);
  const scene = shown[at];
  const current = scene?.current ?? null;
  const { found } = usePictures(current);
  const earlier = found?.images.filter(({ record_id, image_url }) => {
    return record_id !== current?.record_id && isWebAddress(image_url);
  });

  useEffect(() => {
    film.current?.querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest", inline: "center" });
  });

  function step(by: number): void {
    const next = shown[at + by];
    if (next) onMove(next.text.number);
  }

  function onKeyDown(event: KeyboardEvent): void {
    // the slider of the comparison has the arrows for itself
    if (event.target instanceof HTMLInputElement || event.target instanceof HTMLSelectElement) return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  }

  if (!scene || !current?.image_url) return null;
  const hasEarlier = Boolean(earlier?.length);
  return (
    <dialog {...modal} className="gallery" aria-labelledby="gallery-title" onKeyDown={onKeyDown}>
      <div className="gallery-head">
        <div>
          <p className="eyebrow">
            Scene {number} · picture {at + 1} of {shown.length}
          </p>
          <h2 id="gallery-title" dir="auto">
            {scene.text.title}
          </h2>
        </div>
        <div className="gallery-tools">
          {/* it stays where there is nothing to compare: what has the focus must not go away */}
          <button
            type="button"
            className="quiet small"
            aria-pressed={comparing && hasEarlier}
            aria-disabled={!hasEarlier}
            onClick={() => hasEarlier && setComparing(!comparing)}
          >
            Before / after
          </button>
          <button type="button" className="quiet small" onClick={() => onStory(number)}>
            Details
          </button>
          <a className="button quiet small" href={current.image_url} target="_blank" rel="noopener noreferrer">
            Open original
          </a>
        </div>
        {/* biome-ignore lint/a11y/noAutofocus: the way out, in a dialog */}
        <button type="button" className="quiet small gallery-close" autoFocus onClick={onClose}>
          Close
        </button>
      </div>
      <div className="gallery-stage">
        {comparing && earlier && hasEarlier ? (
          <Compare key={current.record_id} after={current} earlier={earlier} alt={scene.text.description} />
        ) : (
          <img key={current.image_url} id="gallery-image" src={current.image_url} alt={scene.text.description} />
        )}
        <Arrow label="Previous picture" shape="M15 5l-7 7 7 7" off={at === 0} onClick={() => step(-1)} />
        <Arrow label="Next picture" shape="M9 5l7 7-7 7" off={at === shown.length - 1} onClick={() => step(1)} />
      </div>
      <div className="gallery-foot">
        <p className="gallery-facts">{made(current)}</p>
        <ol className="film" ref={film} aria-label="Pictures of the chapter">
          {shown.map(({ text, current: picture }) => (
            <li key={text.number}>
              <button
                type="button"
                aria-label={`Scene ${text.number}: ${text.title}`}
                aria-current={text.number === number}
                onClick={() => onMove(text.number)}
              >
                <img src={picture?.thumbnail_url ?? picture?.image_url ?? ""} alt="" loading="lazy" />
              </button>
            </li>
          ))}
        </ol>
      </div>
    </dialog>
  );
}

function Arrow({ label, shape, off, onClick }: { label: string; shape: string; off: boolean; onClick(): void }) {
  return (
    // disabled would throw the keyboard's focus out of the dialog
    <button type="button" className="arrow" aria-label={label} aria-disabled={off} onClick={onClick}>
      <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">
        <path d={shape} fill="none" stroke="currentColor" strokeWidth="2.2" strokeLinecap="round" />
      </svg>
    </button>
  );
}
