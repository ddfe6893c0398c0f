import type { ImageStatus } from "@scenewire/client";
import { useState } from "react";
import { made, momentOf } from "./words.js";

interface Props {
  after: ImageStatus;
  /** The newest first; not empty. */
  earlier: ImageStatus[];
  alt: string;
}

/** Two pictures of a scene in one frame, with a bar between them. */
export function Compare({ after, earlier, alt }: Props) {
  const [chosen, setChosen] = useState(earlier[0]!.record_id);
  const [bar, setBar] = useState(50);
  const before = earlier.find(({ record_id }) => record_id === chosen) ?? earlier[0]!;
  return (
    <div className="compare">
      <div className="compare-frame">
        <img src={after.image_url ?? ""} alt={`After: ${alt}`} />
        <img
          className="compare-before"
          src={before.image_url ?? ""}
          alt={`Before: ${alt}`}
          style={{ clipPath: `inset(0 ${100 - bar}% 0 0)` }}
        />
        <span className="compare-bar" style={{ left: `${bar}%` }} aria-hidden="true" />
        <span className="compare-label" aria-hidden="true" data-hidden={bar < 12 || undefined}>
          Before
        </span>
        <span className="compare-label after" aria-hidden="true" data-hidden={bar > 88 || undefined}>
          After
        </span>
        <input
          type="range"
          min={0}
          max={100}
          value={bar}
          aria-label="How much of the earlier picture is shown"
          aria-valuetext={`${bar}% before, ${100 - bar}% after`}
          onChange={({ target }) => setBar(Number(target.value))}
        />
      </div>
      <label className="compare-choice">
        <span>Before:</span>
        <select value={before.record_id} onChange={({ target }) => setChosen(target.value)}>
          {earlier.map((image) => (
            <option key={image.record_id} value={image.record_id}>
              {[momentOf(image.completed_at ?? image.created_at), made(image)].filter(Boolean).join(" · ")}
            </option>
          ))}
        </select>
      </label>
    </div>
  );
}
