// Words for people: stages, waits, costs and choices.

import { type ImageStatus, isTerminal } from "@scenewire/client";

export const STYLES: [string, string][] = [
  ["realistic", "Realistic"],
  ["cinematic", "Cinematic"],
  ["animated", "Animated"],
  ["fantasy", "Fantasy"],
];

export const SHAPES: [string, string][] = [
  ["widescreen", "16:9 Widescreen"],
  ["landscape", "4:3 Landscape"],
  ["photo", "3:2 Photo"],
  ["square", "1:1 Square"],
  ["portrait", "3:4 Portrait"],
  ["poster", "2:3 Poster"],
  ["vertical", "9:16 Vertical"],
  ["ultrawide", "21:9 Ultrawide"],
];

export const labelOf = (choices: [string, string][], value: string): string =>
  choices.find(([name]) => name === value)?.[1] ?? value;

/** Width over height of a shape's name. */
export function ratioOf(shape: string): number {
  const [width = 16, height = 9] = labelOf(SHAPES, shape).split(" ")[0]!.split(":").map(Number);
  return width / height || 16 / 9;
}

const RETRIES = 3;

export function span(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return whole % 60 && minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
}

/** Seconds between two moments; null where one of them is not known. */
export function secondsBetween(from: string | null | undefined, to: string | null | undefined): number | null {
  const took = (Date.parse(to ?? "") - Date.parse(from ?? "")) / 1000;
  return Number.isFinite(took) ? took : null;
}

export const tookWords = (seconds: number): string => (seconds < 10 ? `${seconds.toFixed(1)} s` : span(seconds));

const PRICE = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumSignificantDigits: 3 });
export const dollars = (price: number): string => PRICE.format(price);

const MOMENT = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
export const momentOf = (iso: string | null | undefined): string => (iso ? MOMENT.format(new Date(iso)) : "");

export interface Going {
  headline: string;
  detail: string;
  /** 0-100 */
  progress: number;
}

function queued({ queue_position: place }: ImageStatus): string {
  if (place === 1) return "Next in line";
  return place ? `Number ${place} in line` : "Waiting in line";
}

function waiting(image: ImageStatus, now: number): [string, string] {
  const seconds = image.retry_at ? Math.max(0, Math.ceil((Date.parse(image.retry_at) - now) / 1000)) : null;
  const when = seconds === null ? "soon" : seconds === 0 ? "now" : `in ${span(seconds)}`;
  if (image.error_class === "rate_limited") return ["The provider is busy", `Goes on ${when}`];
  return [`Trying again ${when}`, image.retry_count ? `Retry ${image.retry_count} of ${RETRIES}` : ""];
}

// an estimate holds from when this version of the image was first looked at
const seen = new WeakMap<ImageStatus, number>();

// One that was made while the image waited says little once it is nearly there.
const NEARLY = 70;

function remaining(image: ImageStatus, now: number): string {
  if (!seen.has(image)) seen.set(image, now);
  if (image.eta_seconds == null || image.progress >= NEARLY) return "";
  const left = image.eta_seconds - (now - seen.get(image)!) / 1000;
  return left >= 2 ? `about ${span(left)} left` : "";
}

/** What is going on with an image that is under way. */
export function underWay(image: ImageStatus, now: number): Going {
  const progress = image.progress ?? 0;
  switch (image.stage) {
    case "submitting":
      return { headline: "Sending to the model", detail: remaining(image, now), progress };
    case "generating":
      return { headline: "Painting the picture", detail: remaining(image, now), progress };
    case "storing":
      return { headline: "Saving the picture", detail: "", progress };
    case "retry_wait": {
      const [headline, detail] = waiting(image, now);
      return { headline, detail, progress };
    }
    case "provider_paused":
      return { headline: "The image provider is paused", detail: "Goes on by itself", progress };
    default:
      return { headline: queued(image), detail: remaining(image, now), progress };
  }
}

export const isUnderWay = (image: ImageStatus | null): image is ImageStatus & { status: "pending" | "in_progress" } =>
  image !== null && !isTerminal(image);

/** One line about a finished picture: with what, and how long it took. */
export function made(image: ImageStatus): string {
  const took = secondsBetween(image.created_at, image.completed_at);
  const retries = image.retry_count === 1 ? "1 retry" : image.retry_count ? `${image.retry_count} retries` : null;
  return [image.model_id, took !== null && tookWords(took), retries].filter(Boolean).join(" · ");
}

export function failed(image: ImageStatus | null): string {
  if (image?.status === "cancelled") return "This request was cancelled.";
  return image?.error_message || "The picture could not be made. Try again, or change the words of the scene.";
}
