import type { FieldError } from "@scenewire/client";
import { type KeyboardEvent, type ReactNode, useEffect, useRef, useState } from "react";
import type { SceneText, SceneWords } from "./scenes.js";
import { SHAPES, STYLES } from "./words.js";

const DESCRIPTION_MOST = 4000;
const PROMPT_MOST = 2000;
const NAMES: Record<string, keyof SceneWords> = {
  scene_description: "description",
  custom_prompt: "customPrompt",
  style: "style",
  aspect_ratio: "shape",
};

interface Props {
  text: SceneText;
  /** What the service did not accept. */
  faults: readonly FieldError[];
  onSave(words: SceneWords): void;
  onRestore(): void;
  onClose(): void;
}

/** The scene's words, its style and shape, and a prompt of one's own. */
export function Editor({ text, faults, onSave, onRestore, onClose }: Props) {
  const [words, setWords] = useState<SceneWords>(() => {
    const { description, style, shape, customPrompt } = text;
    return { description, style, shape, customPrompt };
  });
  const [isEmpty, setEmpty] = useState(false);
  const description = useRef<HTMLTextAreaElement>(null);
  const opened = useRef(JSON.stringify(words));
  const said = Object.fromEntries(
    faults.map(({ field, message }) => [NAMES[field.split(".").at(-1) ?? ""] ?? "", message]),
  );
  const fault = (name: keyof SceneWords) =>
    name === "description" && isEmpty ? "Describe the scene in a few words." : said[name];
  const set = (change: Partial<SceneWords>) => setWords({ ...words, ...change });

  useEffect(() => description.current?.focus(), []);

  function save(): void {
    const cut = { ...words, description: words.description.trim(), customPrompt: words.customPrompt.trim() };
    setEmpty(!cut.description);
    if (cut.description) onSave(cut);
    else description.current?.focus();
  }

  function onKeyDown(event: KeyboardEvent): void {
    // words that were typed are given up by "Cancel" alone
    if (event.key === "Escape" && opened.current === JSON.stringify(words)) onClose();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
  }

  const id = (name: string) => `scene-${text.number}-${name}`;
  const common = (name: keyof SceneWords) => ({
    id: id(name),
    "aria-describedby": `${id(name)}-fault`,
    "aria-invalid": fault(name) ? true : undefined,
  });
  const field = (name: keyof SceneWords, label: string, input: ReactNode) => (
    <div className="field">
      <label htmlFor={id(name)}>{label}</label>
      {input}
      <p className="field-fault" id={`${id(name)}-fault`}>
        {fault(name)}
      </p>
    </div>
  );
  const select = (name: "style" | "shape", choices: [string, string][]) => (
    <select
      {...common(name)}
      value={words[name] ?? ""}
      onChange={({ target }) => set({ [name]: target.value || null })}
    >
      <option value="">As the chapter</option>
      {choices.map(([value, label]) => (
        <option key={value} value={value}>
          {label}
        </option>
      ))}
    </select>
  );

  return (
    <form
      className="editor"
      noValidate
      aria-label={`Words and look of scene ${text.number}`}
      onKeyDown={onKeyDown}
      onSubmit={(event) => {
        event.preventDefault();
        save();
      }}
    >
      {field(
        "description",
        "What is to be seen",
        <textarea
          ref={description}
          rows={5}
          maxLength={DESCRIPTION_MOST}
          required
          dir="auto"
          value={words.description}
          onChange={({ target }) => set({ description: target.value })}
          {...common("description")}
        />,
      )}
      <div className="pair">
        {field("style", "Style", select("style", STYLES))}
        {field("shape", "Shape", select("shape", SHAPES))}
      </div>
      {field(
        "customPrompt",
        "Your own prompt (optional)",
        <textarea
          rows={2}
          maxLength={PROMPT_MOST}
          dir="auto"
          placeholder="e.g. pen and ink, warm evening light"
          value={words.customPrompt}
          onChange={({ target }) => set({ customPrompt: target.value })}
          {...common("customPrompt")}
        />,
      )}
      <div className="actions">
        <button type="submit" className="primary small">
          Save
        </button>
        <button type="button" className="quiet small" onClick={onClose}>
          Cancel
        </button>
        {(text.added || text.changed) && (
          <button type="button" className="quiet small" onClick={onRestore}>
            {text.added ? "Remove the scene" : "Restore the chapter’s words"}
          </button>
        )}
      </div>
    </form>
  );
}
