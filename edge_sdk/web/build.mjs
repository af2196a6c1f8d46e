// Bundles the page into dist/, which the aggregation service serves; with --tests the tests into build/test/.
import { existsSync, readdirSync, rmSync } from "node:fs";
import { build } from "esbuild";

const shared = { bundle: true, format: "esm", target: "es2022", sourcemap: true, logLevel: "warning" };

async function buildTests() {
  rmSync("build", { recursive: true, force: true });
  await build({
    ...shared,
    entryPoints: readdirSync("test").filter((name) => name.endsWith(".ts")).map((name) => `test/${name}`),
    outdir: "build/test",
    outExtension: { ".js": ".mjs" },
    platform: "node",
    // What comes from npm is imported as it lies there: tests are run from this folder.
    packages: "external",
  });
}

async function buildPage() {
  rmSync("dist", { recursive: true, force: true });
  // What the page loads by name: itself, and the worker that trains.
  const entryPoints = ["src/page/main.ts", "src/training/worker.ts"].filter((name) => existsSync(name));
  await build({ ...shared, entryPoints, outdir: "dist", entryNames: "[name]", minify: true, platform: "browser" });
}

await (process.argv.includes("--tests") ? buildTests() : buildPage());
