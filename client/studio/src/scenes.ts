// The words of the chapter: what is served beside the page, and a person's own changes over it (kept in this browser).

import type { SceneImageRequest } from "@scenewire/client";
import type { ChapterWords } from "./config.js";
import { listeners } from "./listeners.js";

/** What a person may say about a scene; style and shape are null for "as the chapter". */
export interface SceneWords {
  description: string;
  style: string | null;
  shape: string | null;
  customPrompt: string;
}

export interface SceneText extends SceneWords {
  number: number;
  title: string;
  /** It is not in the chapter's served words. */
  added: boolean;
  /** It is, and was changed here. */
  changed: boolean;
}

export interface Choices {
  style: string;
  shape: string;
}

const BLANK: SceneWords = { description: "", style: null, shape: null, customPrompt: "" };

export class Scenes {
  readonly #key: string;
  readonly #original = new Map<number, { title: string; description: string }>();
  readonly #changes = listeners();
  readonly subscribe = this.#changes.subscribe;
  #own: Record<number, Partial<SceneWords>> = {};
  #choices: Choices;
  #all: readonly SceneText[] | null = null;

  /** `chapter`: null for one whose words are not known here. */
  constructor(chapterId: string, chapter: ChapterWords | null) {
    this.#key = `scenewire.chapter.${chapterId}`;
    for (const { scene_number, title, scene_description } of chapter?.scenes ?? []) {
      this.#original.set(scene_number, { title, description: scene_description });
    }
    this.#choices = { style: chapter?.style ?? "cinematic", shape: chapter?.aspect_ratio ?? "widescreen" };
    this.#load();
  }

  readonly choices = (): Choices => this.#choices;

  /** In order; the same array until something changes. */
  readonly all = (): readonly SceneText[] => {
    const numbers = new Set([...this.#original.keys(), ...Object.keys(this.#own).map(Number)]);
    this.#all ??= [...numbers].sort((a, b) => a - b).map((number) => this.#one(number));
    return this.#all;
  };

  #one(number: number): SceneText {
    const original = this.#original.get(number);
    const own = this.#own[number];
    const text = { ...BLANK, title: `Scene ${number}`, ...original, ...own };
    return { ...text, number, added: !original, changed: Boolean(original && own) };
  }

  choose(choices: Partial<Choices>): void {
    this.#choices = { ...this.#choices, ...choices };
    this.#save();
  }

  save(number: number, words: SceneWords): void {
    this.#own = { ...this.#own, [number]: words };
    this.#save();
  }

  /** Back to the words of the chapter; an added scene goes away, unless it has been asked for (`keep`). */
  restore(number: number, keep: boolean): void {
    delete this.#own[number];
    if (keep && !this.#original.has(number)) this.#own[number] = {};
    this.#save();
  }

  add(): number {
    const number = Math.max(0, ...this.all().map((scene) => scene.number)) + 1;
    this.save(number, BLANK);
    return number;
  }

  /** Gives scenes that only the service knows a place on the page. */
  ensure(numbers: Iterable<number>): void {
    const fresh = [...numbers].filter((number) => !this.#original.has(number) && !this.#own[number]);
    if (!fresh.length) return;
    for (const number of fresh) this.#own[number] = {};
    this.#told();
  }

  /** The body of the request for one scene. */
  body({ description, style, shape, customPrompt }: SceneText): SceneImageRequest {
    return {
      scene_description: description,
      style: style ?? this.#choices.style,
      aspect_ratio: shape ?? this.#choices.shape,
      ...(customPrompt && { custom_prompt: customPrompt }),
    } as SceneImageRequest;
  }

  #told(): void {
    this.#all = null;
    this.#changes.tell();
  }

  #load(): void {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#key) ?? "{}");
      for (const [number, words] of Object.entries<Partial<SceneWords>>(kept.scenes ?? {})) {
        if (Number.isInteger(Number(number)) && typeof words?.description === "string") {
          this.#own[Number(number)] = words;
        }
      }
      this.#choices = { ...this.#choices, ...kept.choices };
    } catch {
      // storage is off or holds something else: the page works without it
    }
  }

  #save(): void {
    try {
      localStorage.setItem(this.#key, JSON.stringify({ scenes: this.#own, choices: this.#choices }));
    } catch {
      // storage is off or full: the changes last as long as the page
    }
    this.#told();
  }
}
