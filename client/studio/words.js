// Words for people: stages, waits and choices.

import { isTerminal } from "./store.js";

export const STYLES = [
  ["realistic", "Realistic"],
  ["cinematic", "Cinematic"],
  ["animated", "Animated"],
  ["fantasy", "Fantasy"],
];

export const SHAPES = [
  ["widescreen", "16:9 Widescreen"],
  ["landscape", "4:3 Landscape"],
  ["photo", "3:2 Photo"],
  ["square", "1:1 Square"],
  ["portrait", "3:4 Portrait"],
  ["poster", "2:3 Poster"],
  ["vertical", "9:16 Vertical"],
  ["ultrawide", "21:9 Ultrawide"],
];

const RATIOS = Object.fromEntries(SHAPES.map(([name, label]) => [name, label.split(" ")[0].split(":").map(Number)]));

/** Width over height of a shape's name. */
export function ratioOf(shape) {
  const [width, height] = RATIOS[shape] ?? RATIOS.widescreen;
  return width / height;
}

export const CONNECTION = {
  connecting: "Connecting",
  live: "Live",
  reconnecting: "Reconnecting",
  polling: "Polling",
  offline: "Offline",
};

const RETRIES = 3;

export function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  return whole % 60 && minutes < 10 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
}

function secondsUntil(iso, now) {
  return iso ? Math.max(0, Math.ceil((Date.parse(iso) - now) / 1000)) : null;
}

function queued(image) {
  if (image.queue_position === 1) return "Next in line";
  return image.queue_position > 1 ? `Number ${image.queue_position} in line` : "Waiting in line";
}

function waiting(image, now) {
  const seconds = secondsUntil(image.retry_at, now);
  const when = seconds === null ? "soon" : seconds === 0 ? "now" : `in ${span(seconds)}`;
  if (image.error_class === "rate_limited") return ["The provider is busy", `Goes on ${when}`];
  return [`Trying again ${when}`, image.retry_count ? `Retry ${image.retry_count} of ${RETRIES}` : ""];
}

const NEARLY = 70;

// An estimate made while the image waited says little once it is nearly there.
function remaining(image, now) {
  if (image.eta_seconds == null || image.progress >= NEARLY) return "";
  const left = image.eta_seconds - (now - (image.eta_seen_at ?? now)) / 1000;
  return left >= 2 ? `about ${span(left)} left` : "";
}

/** Headline, detail and progress (0-100) of an image that is under way. */
export function underWay(image, now) {
  const progress = image.progress ?? 0;
  switch (image.stage) {
    case "submitting":
      return { headline: "Sending to the image model", detail: remaining(image, now), progress };
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

export const isUnderWay = (image) => Boolean(image) && !isTerminal(image);

export const isWaiting = (image) => isUnderWay(image) && (image.stage === "queued" || image.status === "pending");

/** One line about a finished picture: how long it took, with what. */
export function made(image) {
  const parts = [];
  const took = (Date.parse(image.completed_at) - Date.parse(image.created_at)) / 1000;
  if (Number.isFinite(took)) parts.push(took < 10 ? `Made in ${took.toFixed(1)} s` : `Made in ${span(took)}`);
  if (image.model_id) parts.push(image.model_id);
  if (image.retry_count) parts.push(image.retry_count === 1 ? "1 retry" : `${image.retry_count} retries`);
  return parts.join(" · ");
}

export function failed(image) {
  if (image.status === "cancelled") return "This request was cancelled.";
  return image.error_message || "The picture could not be made. Try again, or change the words of the scene.";
}
