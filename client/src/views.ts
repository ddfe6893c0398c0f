import type { ImageStatus } from "./contract.js";
import type { ChapterView, ImageView, SceneView, ScenewireError, Scope } from "./options.js";

/** Whether it has come to its end; only a replay by an operator begins it again. */
export const isTerminal = ({ status }: ImageStatus): boolean => /^(completed|failed|cancelled)$/.test(status);

// "...Z" here and "...+00:00" there, to the microsecond, which Date does not know: without the zone they sort as text
const moment = ({ created_at, record_id }: ImageStatus): string =>
  `${(created_at ?? "").replace(/Z|\+00:00$/, "")} ${record_id}`;

/** Records by id, each with the time its estimate was made at; versions of a record only rise. */
export type Records = Map<string, { image: ImageStatus; at: number }>;

/** True when this is news. `read`: it comes from a snapshot, which also says what is worked out when it is read. */
export function keep(records: Records, image: ImageStatus, read: boolean): boolean {
  const at = Date.now();
  const known = records.get(image.record_id);
  let kept = image;
  if (known) {
    const { image: before } = known;
    const rise = image.version - before.version;
    // the same version differs in what is worked out alone; rows of the old system have none, and differ as they like
    if (rise < 0 || (!rise && ((!read && image.version) || JSON.stringify(image) === JSON.stringify(before)))) {
      return false;
    }
    // no frame carries an estimate: the one that was read holds, less the time that has passed
    const eta_seconds = before.eta_seconds && Math.max(0, Math.round(before.eta_seconds - (at - known.at) / 1000));
    if (!read && !isTerminal(image)) kept = { ...image, eta_seconds };
  }
  records.set(image.record_id, { image: kept, at });
  return true;
}

/** Whether an image belongs to what is watched. */
export const concerns = ({ mine, record_id, chapter_id }: Scope, image: ImageStatus): boolean =>
  mine || record_id === image.record_id || (!!chapter_id && chapter_id === image.chapter_id);

/** A view of any scope; each shows its part of it. */
export type AnyView = ChapterView & ImageView;

export const EMPTY: AnyView = { ready: false, done: false, error: null, images: [], scenes: [], image: null };

export function viewOf(scope: Scope, records: Records, error: ScenewireError | null, before: AnyView): AnyView {
  const images = Array.from(records.values(), ({ image }) => image);
  images.sort((a, b) => (moment(a) < moment(b) ? -1 : 1));
  const found: SceneView[] = [];
  for (const latest of images) {
    const sceneNumber = latest.scene_number;
    if (!scope.chapter_id || sceneNumber === null || latest.image_type !== "scene") continue;
    const drawn = latest.status === "completed" && latest.image_url;
    found[sceneNumber] = { sceneNumber, latest, current: drawn ? latest : (found[sceneNumber]?.current ?? null) };
  }
  // holes are passed over; what has not changed stays the same object, so that nothing else is drawn again
  const scenes = Object.values(found).map(
    (scene) =>
      before.scenes.find(({ latest, current }) => latest === scene.latest && current === scene.current) ?? scene,
  );
  const last = scope.chapter_id ? scenes.map(({ latest }) => latest) : images;
  return {
    ready: true,
    error,
    images,
    scenes,
    image: images[0] ?? null,
    done: !!last.length && last.every(isTerminal),
  };
}

/** The view of a chapter's images as a plain call gives them: for a server's page, and for the time before the first answer. */
export function chapterViewOf(images: readonly ImageStatus[]): ChapterView {
  const records: Records = new Map();
  for (const image of images) keep(records, image, true);
  return viewOf({ id: "", chapter_id: "any" }, records, null, EMPTY);
}
