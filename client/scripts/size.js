// Weighs every entry as a page would load it. Fails where one is above its limit.

import { gzipSync } from "node:zlib";
import { rolldown } from "rolldown";
import { ENTRIES, input, LIMITS } from "./entries.js";

let tooBig = false;
for (const name of ENTRIES) {
  const bundle = await rolldown(input(name));
  const { output } = await bundle.generate({ format: "esm", minify: true });
  await bundle.close();
  const bytes = gzipSync(output[0].code, { level: 9 }).length;
  tooBig ||= bytes > LIMITS[name];
  console.log(
    `${name.padEnd(10)} ${String(bytes).padStart(5)} of ${LIMITS[name]} bytes${bytes > LIMITS[name] ? ": too big" : ""}`,
  );
}
process.exitCode = tooBig ? 1 : 0;
