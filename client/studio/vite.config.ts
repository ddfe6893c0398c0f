import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

// The page at / takes its files from /studio/, and both may lie below a prefix.
export default defineConfig({
  root: here("."),
  base: "./",
  publicDir: here("./public"),
  logLevel: "warn",
  resolve: {
    alias: [
      { find: /^@scenewire\/client$/, replacement: here("../src/index.ts") },
      { find: /^@scenewire\/client\/(.+)$/, replacement: `${here("../src/")}$1.ts` },
    ],
  },
  build: {
    outDir: here("./page"),
    emptyOutDir: true,
    // whoever gets the page gets the licences of what is in it
    license: { fileName: "LICENSES.md" },
    target: "es2022",
    // light-dark() stays what it is: rewritten, it would not follow color-scheme below the root
    cssTarget: ["chrome123", "firefox120", "safari17.5"],
    modulePreload: false,
    // one script and one sheet: nothing is to be gained from more
    assetsInlineLimit: 0,
    rolldownOptions: {
      checks: { moduleLevelDirective: false },
      output: { entryFileNames: "studio.js", assetFileNames: "studio[extname]" },
    },
  },
  experimental: {
    renderBuiltUrl: (file, { hostType }) => (hostType === "html" ? `studio/${file}` : { relative: true }),
  },
});
