// What the notifier tells the page of this deployment, and the words of the demo chapter.

export interface Config {
  api_url: string;
  push_url: string;
  /** The chapter that the page opens with; null: one of the person's own. */
  chapter_id: string | null;
  /** Where a simulator stands in for the provider, and may be told how to behave. */
  simulator_url: string | null;
  /** Given out on one's own machine alone. */
  token?: string;
}

export interface ChapterWords {
  book: string;
  author: string;
  chapter: string;
  title: string;
  style: string;
  aspect_ratio: string;
  scenes: { scene_number: number; title: string; scene_description: string }[];
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

async function beside<T>(name: string): Promise<T> {
  const response = await fetch(new URL(`studio/${name}`, document.baseURI), { cache: "no-store" });
  if (!response.ok) throw new Error(`The page's file ${name} answered ${response.status}.`);
  return response.json();
}

export async function loadConfig(): Promise<Config> {
  const config = await beside<Config>("config.json");
  return { ...config, api_url: config.api_url || location.origin, push_url: config.push_url || location.origin };
}

/** `?chapter=<uuid>` opens a chapter of one's own; the served words belong to the chapter of config.json alone. */
export async function openChapter(config: Config): Promise<{ chapterId: string; words: ChapterWords | null }> {
  const asked = new URL(location.href).searchParams.get("chapter") ?? "";
  const chapterId = UUID.test(asked) ? asked.toLowerCase() : config.chapter_id;
  if (chapterId) {
    const words = chapterId === config.chapter_id ? await beside<ChapterWords>("chapter.json").catch(() => null) : null;
    return { chapterId, words };
  }
  const made = newUuid();
  history.replaceState(null, "", `?chapter=${made}${location.hash}`);
  return { chapterId: made, words: null };
}

// crypto.randomUUID exists only on https and localhost
function newUuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 15) | 64;
  bytes[8] = (bytes[8]! & 63) | 128;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** Addresses come from a service: only these two schemes are ever given to an `<img>` or a link. */
export const isWebAddress = (url: string | null | undefined): url is string => /^https?:\/\//i.test(url ?? "");
