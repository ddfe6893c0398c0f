// Writes the page of the browser tests into a folder: node scripts/page.js FOLDER

import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const [folder] = process.argv.slice(2);
const here = (path) => fileURLToPath(new URL(path, import.meta.url));

const bundle = await rolldown({
  input: { page: here("../tests/browser/page.tsx") },
  platform: "browser",
  resolve: { alias: { "@scenewire/client": here("../src/index.ts") } },
  // React's StrictMode mounts twice in development alone
  transform: { define: { "process.env.NODE_ENV": '"development"' } },
  checks: { moduleLevelDirective: false },
});
await bundle.write({ dir: folder, format: "esm" });
await bundle.close();
