import type { ImageStatus } from "@scenewire/client";
import { useState } from "react";
import { type Attempt, useAttempts } from "./history.js";
import { useModal, useNow } from "./hooks.js";
import type { Scene } from "./phase.js";
import { dollars, failed, isUnderWay, momentOf, secondsBetween, tookWords, underWay } from "./words.js";

const OUTCOMES: Record<string, [string, "good" | "bad" | "wait" | "soft"]> = {
  success: ["Made", "good"],
  late_success: ["Made late", "good"],
  failed: ["Failed", "bad"],
  late_failure: ["Failed late", "bad"],
  uncertain: ["Not answered", "bad"],
  deferred: ["Put off", "wait"],
  handed_over: ["Next model", "wait"],
  superseded: ["Not needed", "soft"],
  not_sent: ["Not sent", "soft"],
  cancelled: ["Ended", "soft"],
};

/** How a scene's picture came about: prompt, model, cost, and every attempt with what became of it. */
export function Story({ scene, onClose }: { scene: Scene; onClose(): void }) {
  const modal = useModal(onClose);
  const { latest, current, text } = scene;
  const [chosen, setChosen] = useState<"latest" | "current">("latest");
  const differ = Boolean(latest && current && latest.record_id !== current.record_id);
  const image = (differ && chosen === "current" ? current : latest) ?? current;
  const { found, error } = useAttempts(image);
  if (!image) return null;
  const attempts = found?.attempts ?? [];
  return (
    <dialog {...modal} className="story" aria-labelledby="story-title">
      <div className="story-head">
        <div>
          <p className="eyebrow">Scene {text.number}</p>
          <h2 id="story-title" dir="auto">
            {text.title}
          </h2>
        </div>
        {/* biome-ignore lint/a11y/noAutofocus: the way out, in a dialog */}
        <button type="button" className="quiet small" autoFocus onClick={onClose}>
          Close
        </button>
      </div>
      {differ && (
        <fieldset className="story-which">
          <legend className="visually-hidden">Which of the two</legend>
          {(["latest", "current"] as const).map((which) => (
            <label key={which}>
              <input type="radio" name="story-which" checked={chosen === which} onChange={() => setChosen(which)} />
              {which === "latest" ? "Newest request" : "Picture shown"}
            </label>
          ))}
        </fieldset>
      )}
      <State image={image} />
      <Facts image={image} attempts={attempts} />
      <h3>Attempts</h3>
      {error !== null && <p className="fault">The attempts could not be read. {error}</p>}
      {found && attempts.length === 0 && <p className="soft">Nothing was sent to a model yet.</p>}
      <ol className="attempts" aria-label="Attempts">
        {attempts.map((attempt) => (
          <One key={attempt.attempt} attempt={attempt} />
        ))}
      </ol>
      <Prompts attempts={attempts} />
    </dialog>
  );
}

function State({ image }: { image: ImageStatus }) {
  const going = isUnderWay(image);
  const now = useNow(going);
  if (going) {
    const { headline, detail, progress } = underWay(image, now);
    return (
      <p className="story-state">
        <strong>{headline}</strong> {[progress && `${progress}%`, detail].filter(Boolean).join(" · ")}
      </p>
    );
  }
  if (image.status === "completed") return null;
  return <p className="fault">{failed(image)}</p>;
}

function Facts({ image, attempts }: { image: ImageStatus; attempts: Attempt[] }) {
  const took = secondsBetween(image.created_at, image.completed_at);
  const settled = attempts.filter(({ charge }) => charge === "settled");
  const cost = image.cost_usd ?? settled.reduce((sum, { cost_usd }) => sum + (cost_usd ?? 0), 0);
  const facts: [string, string | null][] = [
    ["Model", image.model_id],
    ["Requested", momentOf(image.created_at)],
    ["Took", image.status === "completed" && took !== null ? tookWords(took) : null],
    ["Retries", `${image.retry_count} of 3`],
    ["Cost", attempts.length ? dollars(cost) : null],
  ];
  return (
    <dl className="facts">
      {facts
        .filter(([, value]) => value)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}

function One({ attempt }: { attempt: Attempt }) {
  const [label, tone] = attempt.outcome
    ? (OUTCOMES[attempt.outcome] ?? [attempt.outcome, "soft"])
    : ["Under way", "wait"];
  const took = secondsBetween(attempt.sent_at ?? attempt.claimed_at, attempt.closed_at);
  return (
    <li data-tone={tone}>
      <p className="attempt-head">
        <span>
          {attempt.attempt}. <strong>{attempt.model_id}</strong>
        </span>
        <span className="outcome">{label}</span>
      </p>
      <p>{attempt.message}</p>
      <p className="soft">
        {[took !== null && tookWords(took), cost(attempt), attempt.counted === false && "costs no try"]
          .filter(Boolean)
          .join(" · ")}
      </p>
    </li>
  );
}

function cost({ cost_usd, charge }: Attempt): string | null {
  if (charge === "released") return "free";
  if (cost_usd === null) return null;
  if (charge === "settled") return dollars(cost_usd);
  return charge === "uncertain" ? `perhaps ${dollars(cost_usd)}` : `${dollars(cost_usd)} if it is made`;
}

/** The very words that the models were given; mostly the same for all. */
function Prompts({ attempts }: { attempts: Attempt[] }) {
  const last = attempts.at(-1);
  if (!last) return null;
  return (
    <>
      <h3>Prompt</h3>
      <p className="prompt" dir="auto">
        {last.prompt}
      </p>
    </>
  );
}
