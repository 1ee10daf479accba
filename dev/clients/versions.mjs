// Imports every package that the scripts may use, and prints their versions as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const { resolve } = createRequire(import.meta.url);
const { dependencies } = readUpwards(resolve.paths("x").map((folder) => join(folder, "..", "package.json")));

const versions = {};
for (const name of Object.keys(dependencies)) {
  await import(name);
  versions[name] = readUpwards(resolve.paths(name).map((folder) => join(folder, name, "package.json"))).version;
}
console.log(JSON.stringify(versions));

// readUpwards reads the first of the files that exists.
function readUpwards(paths) {
  for (const path of paths) {
    try {
      return JSON.parse(readFileSync(path));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
    }
  }
  throw new Error(`none of ${paths} exists`);
}
