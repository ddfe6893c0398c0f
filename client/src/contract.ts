// Written by `make docs` from schemas/. Do not edit.

export interface Auth {
  type: "auth";
  token: string;
}

export interface Bye {
  type: "bye";
  code: number;
  retry_after_ms: number;
}

/** `latest` and `current` of each scene of a chapter (each record once), in order of scene and request. */
export interface ChapterImages {
  images: ImageStatus[];
  /** for the next call or a socket's `subscribe` */
  cursor: string;
  /** `memory`, `log` or `snapshot`: from what the given cursor was answered */
  resumed: string | null;
}

/** The newest completed picture of a scene. */
export interface CurrentImage {
  record_id: string;
  image_url: string;
  thumbnail_url?: string | null;
}

export interface CursorFrame {
  type: "cursor";
  id: string;
  cursor: string;
}

/** A hint: all of the scope's latest images are terminal. The subscription stays. */
export interface End {
  type: "end";
  id: string;
}

export type ErrorClass =
  | "network"
  | "timeout"
  | "unavailable"
  | "rate_limited"
  | "model_unavailable"
  | "invalid"
  | "auth"
  | "quota"
  | "content"
  | "exhausted"
  | "deadline"
  | "poison"
  | "unexpected";

export interface ErrorFrame {
  type: "error";
  id: string;
  code: string;
  message: string;
}

/** What is wrong with one field. */
export interface FieldError {
  /** its path, with dots */
  field: string;
  /** what it must be */
  message: string;
}

/** 202: the request is on record. `task_id` is `record_id` under the old system's name. */
export interface ImageGenerationQueuedResponse {
  task_id: string;
  /** the image generation, in every status and event */
  record_id: string;
  status?: string;
  /** a sentence for people */
  message: string;
  /** until the picture is there, as far as is known */
  estimated_time_seconds: number;
  scene_number: number;
  retry_count?: number;
  /** where the scene's status is polled; absolute */
  status_url: string;
  /** where the chapter's changes will be streamed; absolute */
  events_url: string;
}

/** One image generation at one version. Absent is null; versions compare within one `record_id` only. */
export interface ImageStatus {
  record_id: string;
  /** `record_id` under the old system's name */
  task_id: string;
  user_id: string | null;
  chapter_id: string | null;
  script_id: string | null;
  scene_number: number | null;
  image_type: string;
  status: Status;
  stage: Stage | null;
  /** percent; never falls within an attempt */
  progress: number;
  /** rises with every change; 0 for rows of the old system */
  version: number;
  /** rises with each submit to the provider */
  attempt: number;
  /** retries after counted failures, 3 at most */
  retry_count: number;
  /** when a waiting image generation goes on */
  retry_at: string | null;
  /**
   * where it stands among those of its lane that wait, 1 is next; computed when read, so null in status events and
   * `status` frames, and null where it stands in no line, too far behind, or nothing moves
   */
  queue_position: number | null;
  /**
   * seconds until the picture is there, as things are now; computed when read, so null in status events and `status`
   * frames, and null where it cannot be known
   */
  eta_seconds: number | null;
  /** the stored picture, absolute, for a plain `<img>` */
  image_url: string | null;
  /** the same, 480 pixels wide, as WebP; made when it is first asked for */
  thumbnail_url?: string | null;
  /** the provider's model */
  model_id: string | null;
  /**
   * US dollars spent on it so far, by the models' prices; computed when read, null in events and frames, and for rows
   * of the old system
   */
  cost_usd?: number | null;
  error_class: ErrorClass | null;
  /** a stable word within the class */
  error_code: string | null;
  /** a sentence a person can act on */
  error_message: string | null;
  created_at: string | null;
  updated_at: string | null;
  completed_at: string | null;
}

export interface Ping {
  type: "ping";
}

export interface Pong {
  type: "pong";
}

/** `application/problem+json` (RFC 9457). */
export interface Problem {
  type: string;
  /** the status in words */
  title: string;
  /** the HTTP status */
  status: number;
  /** a sentence for people: what is wrong and what to do */
  detail: string;
  /** a stable word for programs */
  code: string;
  /** with 422, one for each field */
  errors?: FieldError[] | null;
}

/** Body of `POST /chapters/{chapter_id}/images/scenes/{scene_number}`: types are strict, unknown fields refused. */
export interface SceneImageRequest {
  /** what is to be seen */
  scene_description: string;
  style?: Style;
  /** a preset name or its ratio */
  aspect_ratio?: string;
  /** a wish of one's own, added to the prompt */
  custom_prompt?: string | null;
  /** the script that the scene is from */
  script_id?: string | null;
  /** kept with the record */
  character_ids?: string[] | null;
  /**
   * pictures of those who appear, at public http(s) addresses: the provider fetches them and draws after them, after
   * the first few where its model takes no more
   */
  character_image_urls?: string[] | null;
}

/** `latest` of a scene, and the picture to show meanwhile. */
export interface SceneStatus extends ImageStatus {
  current: CurrentImage | null;
}

/** All of the scope; with a usable cursor only what changed since (`resumed` says from where). */
export interface Snapshot {
  type: "snapshot";
  id: string;
  images: ImageStatus[];
  cursor: string;
  resumed: "memory" | "log" | "snapshot" | null;
}

/** The finer word, for people. */
export type Stage = "queued" | "submitting" | "generating" | "storing" | "retry_wait" | "provider_paused" | "done";

/** What clients of the old system know; a terminal one changes only by an explicit replay. */
export type Status = "pending" | "in_progress" | "completed" | "failed" | "cancelled";

export interface StatusFrame {
  type: "status";
  image: ImageStatus;
  cursor: string;
}

export type Style = "realistic" | "cinematic" | "animated" | "fantasy";

/** Exactly one scope: a chapter, a record, or all that is mine. */
export interface Subscribe {
  type: "subscribe";
  id: string;
  chapter_id?: string | null;
  record_id?: string | null;
  mine?: true | null;
  cursor?: string | null;
}

export interface Unsubscribe {
  type: "unsubscribe";
  id: string;
}

export interface Welcome {
  type: "welcome";
  ping_interval_ms: number;
  expires_at: string;
}

export type ClientFrame = Auth | Subscribe | Unsubscribe | Ping;

export type ServerFrame = Welcome | Snapshot | StatusFrame | CursorFrame | End | ErrorFrame | Ping | Pong | Bye;

export const CLOSE = {
  RESTARTING: 1012,
  BAD_MESSAGE: 4400,
  UNAUTHORIZED: 4401,
  FORBIDDEN: 4403,
  AUTH_TIMEOUT: 4408,
  TOO_MANY: 4429,
  COME_BACK_LATER: 4503,
  TOO_SLOW: 4508,
} as const;

export const SUBPROTOCOL = "scenewire.v1+json";

export const BEARER_PREFIX = "base64url.bearer.scenewire.";
