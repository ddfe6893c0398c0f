// What is known of each image: versions only rise, and a newer request never hides the newest completed picture.

const TERMINAL = new Set(["completed", "failed", "cancelled"]);

export const isTerminal = (image) => TERMINAL.has(image.status);

// ISO 8601 in one offset sorts as text; the record's id decides between equal times.
function isNewer(image, other) {
  if (image.created_at !== other.created_at) return (image.created_at ?? "") > (other.created_at ?? "");
  return image.record_id > other.record_id;
}

export class Store {
  #records = new Map();
  #scenes = new Map();
  #onChange;

  /** `onChange(sceneNumber, view, before)` after each change of a scene; a view is `{latest, current}`. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  get sceneNumbers() {
    return [...this.#scenes.keys()];
  }

  scene(sceneNumber) {
    return this.#scenes.get(sceneNumber) ?? { latest: null, current: null };
  }

  apply(images) {
    for (const image of images) this.#applyOne(image);
  }

  /** Shows a request that was just accepted until its first status arrives: version 0 gives way to any other. */
  expect(sceneNumber, accepted) {
    const eta = accepted.estimated_time_seconds ?? null;
    const seen = this.#records.get(accepted.record_id);
    if (seen) {
      // its first statuses were faster than the answer; only the estimate is news
      if (eta != null && seen.eta_seconds == null && !isTerminal(seen)) {
        this.#keep({ ...seen, eta_seconds: eta, eta_seen_at: Date.now() });
      }
      return;
    }
    const before = this.scene(sceneNumber).latest?.created_at ?? "";
    const now = new Date().toISOString().replace("Z", "+00:00");
    this.#applyOne({
      record_id: accepted.record_id,
      scene_number: sceneNumber,
      status: "pending",
      stage: "queued",
      progress: 0,
      version: 0,
      retry_count: 0,
      eta_seconds: eta,
      // a slow clock here must not make the new request look older than the one before it
      created_at: now > before ? now : `${before}~`,
    });
  }

  #applyOne(image) {
    if (image.scene_number == null) return;
    const seen = this.#records.get(image.record_id);
    if (seen && image.version < seen.version) return;
    const merged = { ...image };
    if (seen && image.version === seen.version) {
      if (seen.version > 0 && image.queue_position == null && image.eta_seconds == null) return;
    }
    // Places and estimates are null in frames: what was known stays until the image leaves the queue.
    if (seen && !isTerminal(image) && merged.eta_seconds == null && seen.eta_seconds != null) {
      merged.eta_seconds = seen.eta_seconds;
      merged.eta_seen_at = seen.eta_seen_at;
    } else if (merged.eta_seconds != null) {
      merged.eta_seen_at = Date.now();
    }
    if (seen && image.stage === "queued" && merged.queue_position == null) merged.queue_position = seen.queue_position;
    this.#keep(merged);
  }

  #keep(image) {
    this.#records.set(image.record_id, image);
    const before = this.scene(image.scene_number);
    const view = { ...before };
    if (!view.latest || view.latest.record_id === image.record_id || isNewer(image, view.latest)) view.latest = image;
    if (image.status === "completed" && image.image_url) {
      if (!view.current || view.current.record_id === image.record_id || isNewer(image, view.current)) view.current = image;
    }
    this.#scenes.set(image.scene_number, view);
    this.#onChange(image.scene_number, view, before);
  }
}
