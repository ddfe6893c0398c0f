// The words of the chapter: what is served beside the page, a person's own changes over it (kept in this browser).

const DEFAULTS = { style: "cinematic", shape: "widescreen" };

export class Scenes {
  #key;
  #original = new Map();
  #own = {};
  #choices;

  /** `chapter` is the content of chapter.json, or null for a chapter whose words are not known here. */
  constructor(chapterId, chapter) {
    this.#key = `scenewire.chapter.${chapterId}`;
    for (const scene of chapter?.scenes ?? []) {
      this.#original.set(scene.scene_number, { title: scene.title, description: scene.scene_description });
    }
    this.#choices = { style: chapter?.style ?? DEFAULTS.style, shape: chapter?.aspect_ratio ?? DEFAULTS.shape };
    this.#load();
  }

  get choices() {
    return this.#choices;
  }

  choose(choices) {
    this.#choices = { ...this.#choices, ...choices };
    this.#save();
  }

  get numbers() {
    const all = new Set([...this.#original.keys(), ...Object.keys(this.#own).map(Number)]);
    return [...all].sort((a, b) => a - b);
  }

  /** `{number, title, description, style, shape, customPrompt, added, changed}`; style and shape are null for "as the chapter". */
  get(number) {
    const original = this.#original.get(number);
    const own = this.#own[number];
    return {
      number,
      title: `Scene ${number}`,
      description: "",
      style: null,
      shape: null,
      customPrompt: "",
      ...original,
      ...own,
      added: !original,
      changed: Boolean(original && own),
    };
  }

  /** The body of the request for one scene. */
  body(number) {
    const scene = this.get(number);
    const body = {
      scene_description: scene.description,
      style: scene.style ?? this.#choices.style,
      aspect_ratio: scene.shape ?? this.#choices.shape,
    };
    if (scene.customPrompt) body.custom_prompt = scene.customPrompt;
    return body;
  }

  save(number, words) {
    this.#own[number] = { ...this.#own[number], ...words };
    this.#save();
  }

  /** Back to the words of the chapter; an added scene goes away. */
  restore(number) {
    delete this.#own[number];
    this.#save();
  }

  add() {
    const number = Math.max(0, ...this.numbers) + 1;
    this.save(number, { description: "" });
    return number;
  }

  /** Gives a scene that only the service knows a place on the page; returns whether it was new. */
  ensure(number) {
    if (this.#original.has(number) || this.#own[number]) return false;
    this.#own[number] = { description: "" };
    return true;
  }

  #load() {
    try {
      const kept = JSON.parse(localStorage.getItem(this.#key) ?? "{}");
      for (const [number, words] of Object.entries(kept.scenes ?? {})) {
        if (Number.isInteger(Number(number)) && typeof words?.description === "string") this.#own[number] = words;
      }
      this.#choices = { ...this.#choices, ...kept.choices };
    } catch {
      // storage is off or holds something else: the page works without it
    }
  }

  #save() {
    try {
      localStorage.setItem(this.#key, JSON.stringify({ scenes: this.#own, choices: this.#choices }));
    } catch {
      // storage is off or full: the changes last as long as the page
    }
  }
}
