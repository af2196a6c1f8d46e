// Bundles the page into dist/, which the aggregation service serves; with --tests the tests into build/test/.
import { copyFileSync, readdirSync, rmSync } from "node:fs";
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

async function buildPage() {
  rmSync("dist", { recursive: true, force: true });
  // What the page loads by name: itself, and the worker that trains.
  const entryPoints = ["src/page/main.ts", "src/training/worker.ts"];
  await build({ ...shared, entryPoints, outdir: "dist", entryNames: "[name]", minify: true, platform: "browser" });
  const runtime = ["mjs", "wasm"].map((end) => `node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.${end}`);
  const own = ["index.html", "style.css", "icon.svg"].map((name) => `src/page/${name}`);
  for (const path of [...own, ...runtime]) copyFileSync(path, join("dist", basename(path)));
}

await (process.argv.includes("--tests") ? buildTests() : buildPage());
