// Writes dist/: every entry as ESM and CJS, each with its types.

import { execFileSync } from "node:child_process";
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";
import { ENTRIES, input } from "./entries.js";

const folder = fileURLToPath(new URL("..", import.meta.url));
const dist = `${folder}dist`;

rmSync(dist, { recursive: true, force: true });
for (const entry of ENTRIES) {
  const bundle = await rolldown(input(entry));
  await bundle.write({ dir: dist, format: "esm", entryFileNames: "[name].js", sourcemap: true });
  await bundle.write({ dir: dist, format: "cjs", entryFileNames: "[name].cjs", exports: "named", sourcemap: true });
  await bundle.close();
}
execFileSync(process.execPath, [`${folder}node_modules/typescript/bin/tsc`, "-p", `${folder}tsconfig.build.json`], {
  stdio: "inherit",
});
for (const name of readdirSync(dist).filter((file) => file.endsWith(".d.ts"))) {
  // the same types once more: those of a CommonJS module lie in .d.cts and name their neighbours so
  const text = readFileSync(`${dist}/${name}`, "utf8");
  writeFileSync(
    `${dist}/${name.replace(/\.d\.ts$/, ".d.cts")}`,
    text.replace(/(from ")(\.\/[^"]+)\.js"/g, '$1$2.cjs"'),
  );
}
cpSync(`${folder}../LICENSE`, `${dist}/LICENSE`);
