// The modes of the simulated provider, as a person chooses them: what each is called, and the action a script says for it.

/** `[name, words]` of `GET /simulator/words`, calmest first. */
export const PROFILES = [
  ["instant", "Instant", "Every picture at once."],
  ["calm", "Calm", "A second or two, nothing goes wrong."],
  ["busy", "Busy", "Slow, and at times turned away."],
  ["bad-day", "Bad day", "Every kind of failure, never more than two in a row for one picture."],
];

const AFTER_A_WHILE = { answer: "processing", duration: 2 };

/** `[key, label, action]`; the faults of `GET /simulator/words` come after them. */
export const FATES = [
  ["well", "All goes well, at once", { answer: "success" }],
  ["slow", "It takes half a minute", { answer: "processing", duration: 30, latency: 0.3 }],
  ["late-link", "The picture’s link works late", { ...AFTER_A_WHILE, fresh_404: 3 }],
  ["second", "The picture’s link never works, its second source does", { ...AFTER_A_WHILE, gone: true }],
  ["half-way", "The job fails half-way", { ...AFTER_A_WHILE, outcome: "failed", fault: "try_again" }],
  ["never", "The job never ends", { answer: "processing", outcome: "never" }],
  ["empty", "Success without a picture", { output: "empty" }],
  ["page", "Success, but the picture is a web page", { picture: "not_a_picture" }],
  ["nsfw", "Success, flagged as not safe", { nsfw: true }],
  ["cut", "The connection is cut, nothing made", { answer: "reset" }],
  ["cut-made", "The connection is cut, the job made and charged", { answer: "reset", created: true, duration: 2 }],
  ["hang", "No answer, the job made and charged", { answer: "hang", duration: 2 }],
];

/** What a fault of `GET /simulator/words` says, short: `503 Service temporarily unavailable.` */
export function faultLabel(name, { code, body }) {
  const said =
    typeof body === "string"
      ? body
        ? body
            .replace(/<[^>]*>/g, " ")
            .trim()
            .split(/\s{2,}/)[0]
        : "nothing"
      : (body.message ?? body.messege ?? body.error);
  const words = typeof said === "string" ? said : JSON.stringify(said);
  const short = words.length > 56 ? `${words.slice(0, 55).trimEnd()}…` : words;
  return `${code}: ${short} (${name.replaceAll("_", " ")})`;
}

// The simulator gives a script back without defaults, and in an order of its own.
const sameAs = (action) => JSON.stringify(Object.entries({ answer: "success", ...action }).sort());

/** One rule in a sentence, for the list of rules in force. */
export function ruleWords(rule) {
  const fate = FATES.find(([, , action]) => sameAs(action) === sameAs(rule.action))?.[1];
  const { fault, answer = "success", outcome } = rule.action;
  const what = fate ?? (fault ? `${outcome ? `${outcome}: ` : ""}${fault.replaceAll("_", " ")}` : answer);
  const when = [
    rule.text != null && `prompts with “${rule.text}”`,
    rule.pattern != null && `prompts that match ${rule.pattern}`,
    rule.model != null && `model ${rule.model}`,
    rule.nth != null && `call ${[rule.nth].flat().join(", ")}`,
    rule.first != null && `the first ${rule.first}${rule.per && rule.per !== "rule" ? ` of each ${rule.per}` : ""}`,
    rule.times != null && `${rule.times} times at most`,
    rule.probability != null && rule.probability < 1 && `${Math.round(rule.probability * 100)} % of calls`,
    rule.call != null && rule.call !== "submit" && `looks for the ${rule.call === "fetch" ? "job" : "picture"}`,
  ].filter(Boolean);
  return { what, when: when.join(", ") || "every call" };
}

/** The rule that a form's values ask for: `{text, model, nth, percent}` as typed, `action` chosen. */
export function ruleOf({ text, model, nth, percent, action }) {
  const rule = { action };
  if (text.trim()) rule.text = text.trim();
  if (model.trim()) rule.model = model.trim();
  if (nth) rule.nth = Number(nth);
  if (percent && Number(percent) < 100) rule.probability = Number(percent) / 100;
  return rule;
}
