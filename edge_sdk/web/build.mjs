// Bundles the page into dist/, which the aggregation service serves; with --tests the tests into build/test/.
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { build } from "esbuild";

const shared = { bundle: true, format: "esm", target: "es2022", sourcemap: true, logLevel: "warning" };

// The package gives this build to bundlers of pages alone; Node loads it by its path.
const WASM_BUILD = "node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
const wasmBuild = {
  name: "wasm-build",
  setup: (own) => own.onResolve({ filter: /^onnxruntime-web\/wasm$/ }, () => ({
    path: pathToFileURL(resolve(WASM_BUILD)).href,
    external: true,
  })),
};

const sources = (folder) => readdirSync(folder).filter((name) => name.endsWith(".ts")).map((name) => `${folder}/${name}`);

// Programs are run by tests and benchmarks in Python; pages are what a browser loads for them.
async function buildTests() {
  rmSync("build", { recursive: true, force: true });
  const tests = sources("test").filter((name) => name.endsWith(".test.ts"));
  await build({
    ...shared,
    entryPoints: [...tests, ...sources("test/programs")],
    outdir: "build",
    outbase: ".",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    // What comes from npm is imported as it lies there: tests are run from this folder.
    packages: "external",
    plugins: [wasmBuild],
  });
  await build({ ...shared, entryPoints: sources("test/pages"), outdir: "build/test/pages", platform: "browser" });
}

// All but the index lies in a folder that is named by its content: browsers keep it for good, and no page that is
// open when another is built gets half of each.
async function buildPage() {
  // What the page loads by name: itself, and the worker that trains.
  const entryPoints = ["src/page/main.ts", "src/training/worker.ts"];
  const options = { entryPoints, outdir: "dist", entryNames: "[name]", minify: true, sourcemap: false, platform: "browser", write: false };
  const { outputFiles } = await build({ ...shared, ...options });
  const copied = [
    ...["mjs", "wasm"].map((end) => `node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.${end}`),
    ...["style.css", "icon.svg"].map((name) => `src/page/${name}`),
  ];
  const files = new Map([
    ...outputFiles.map(({ path, contents }) => [basename(path), contents]),
    ...copied.map((path) => [basename(path), readFileSync(path)]),
  ]);
  const digest = createHash("sha256");
  for (const name of [...files.keys()].sort()) digest.update(`${name}\0`).update(files.get(name));
  const release = digest.digest("hex").slice(0, 16);
  rmSync("dist", { recursive: true, force: true });
  mkdirSync(join("dist", release), { recursive: true });
  for (const [name, contents] of files) writeFileSync(join("dist", release, name), contents);
  writeFileSync(join("dist", "index.html"), indexOf(files, release));
}

// The index as it is written, its files in the folder of the release.
function indexOf(files, release) {
  const found = new Set();
  const index = readFileSync("src/page/index.html", "utf8").replace(/\b(src|href)="([\w.-]+)"/g, (whole, attribute, name) => {
    if (!files.has(name)) return whole;
    found.add(name);
    return `${attribute}="${release}/${name}"`;
  });
  if (!found.has("main.js")) throw new Error("src/page/index.html does not load main.js");
  return index;
}

await (process.argv.includes("--tests") ? buildTests() : buildPage());
