// What the package is made of, and how much each part may weigh.

import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const source = fileURLToPath(new URL("../src/", import.meta.url));
const KILOBYTE = 1_000;

/** Bytes, minified and gzipped, without the core and without what the page brings itself (React, TanStack Query). */
export const LIMITS = {
  index: 4 * KILOBYTE,
  fallback: 3 * KILOBYTE,
  tabs: 3 * KILOBYTE,
  react: 3 * KILOBYTE,
  query: 3 * KILOBYTE,
  compat: 3 * KILOBYTE,
};

const file = (name) => [`${source}${name}.ts`, `${source}${name}.tsx`].find(existsSync);

export const ENTRIES = Object.keys(LIMITS).filter(file);

/** How the bundler is to take an entry: the entries of the package name each other, never each other's files. */
export const input = (name) => ({
  input: { [name]: file(name) },
  external: [/^@scenewire\/client/, /^react/, /^@tanstack\//],
  platform: "neutral",
  // "use client" is preserved; the bundler is not sure of it
  checks: { moduleLevelDirective: false },
});
