export { connect, type Scenewire, type State } from "./client.js";
export type * from "./contract.js";
export type { RequestOptions } from "./http.js";
export * from "./options.js";
export { chapterViewOf, isTerminal } from "./views.js";
