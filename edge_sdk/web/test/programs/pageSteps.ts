// Times the steps of a case in headless Chromium for `hetlora bench clients`: the built page's worker, its files served from here.
import { createReadStream, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { launch } from "puppeteer-core";

interface Asked {
  chromium: string;
  /** Where the browser keeps what a page keeps. */
  profile: string;
  case: string;
  /** The worker sees so many processors, and takes a thread for each; several only in an isolated page. */
  threads: number;
  isolated: boolean;
  seconds: number;
}

const TYPES: Record<string, string> = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm",
};
const ISOLATION = { "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp" };

function serve(asked: Asked): Promise<Server> {
  // Imports are run in their order: the worker asks for the number of processors when its own turn comes.
  const written: Record<string, string> = {
    "/": '<!doctype html><script type="module" src="/steps.js"></script>',
    "/processors.js": `Object.defineProperty(navigator, "hardwareConcurrency", { value: ${asked.threads} });`,
    "/limited-worker.js": 'import "./processors.js"; import "./worker.js";',
  };
  // The folder of the built page that is named by its content.
  const release = readdirSync("dist").find((name) => existsSync(join("dist", name, "worker.js"))) ?? "";
  const folders = [["/case/", asked.case], ["/", "build/test/pages"], ["/", join("dist", release)]] as const;
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url ?? "/", "http://localhost").pathname);
    const files = folders.filter(([root]) => path.startsWith(root)).map(([root, own]) => join(own, path.slice(root.length)));
    const found = files.find((file) => existsSync(file) && statSync(file).isFile());
    const isolation = asked.isolated ? ISOLATION : {};
    const type = path in written && !extname(path) ? "text/html" : TYPES[extname(path)] ?? "application/octet-stream";
    if (path in written) response.writeHead(200, { "Content-Type": type, ...isolation }).end(written[path]);
    else if (found === undefined) response.writeHead(404).end();
    else createReadStream(found).pipe(response.writeHead(200, { "Content-Type": type, ...isolation }));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

async function steps(asked: Asked) {
  const server = await serve(asked);
  const browser = await launch({
    executablePath: asked.chromium,
    userDataDir: asked.profile,
    protocolTimeout: 1000 * asked.seconds,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  try {
    const page = await browser.newPage();
    page.on("console", (said) => said.type() === "error" && console.error(said.text()));
    page.on("pageerror", (error) => console.error(String(error)));
    await page.goto(`http://localhost:${(server.address() as AddressInfo).port}/`, { waitUntil: "load" });
    await page.waitForFunction("typeof steps === 'function'");
    const timed = (await page.evaluate("steps()")) as object;
    return { ...timed, browser: await browser.version() };
  } finally {
    await browser.close();
    server.close();
  }
}

console.log(JSON.stringify(await steps(JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Asked)));
