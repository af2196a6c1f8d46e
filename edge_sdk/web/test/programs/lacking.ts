// Opens the page in headless Chromium without any service, in browsers that lack this or that, and prints what it
// says and shows; tests/e2e/test_browser_page.py looks at it.
import { readdirSync, readFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join } from "node:path";
import { launch, type Browser, type Page, type SerializedAXNode } from "puppeteer-core";

interface Asked {
  chromium: string;
  profile: string;
  /** The folder of the page. */
  dist: string;
}

const TYPES: Record<string, string> = {
  ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
  ".wasm": "application/wasm", ".svg": "image/svg+xml",
};

/** What a browser lacks: a script that is run before the page's own. */
const LACKING: Record<string, string> = {
  webAssembly: "delete globalThis.WebAssembly",
  simd: "WebAssembly.validate = () => false",
  memory: "globalThis.Worker = class extends Worker { constructor() { super('lacking.js', { type: 'module' }) } }",
  ed25519: "SubtleCrypto.prototype.generateKey = async () => { throw new DOMException('', 'NotSupportedError') }",
  cryptography: "Object.defineProperty(crypto, 'subtle', { value: undefined })",
  indexedDb: "Object.defineProperty(globalThis, 'indexedDB', { value: undefined })",
  privateWindow: "IDBFactory.prototype.open = () => { throw new DOMException('', 'SecurityError') }",
};

/** A service that refuses all that it is asked, and counts it. */
const REFUSING = `globalThis.asked = 0; globalThis.fetch = async () => {
  asked += 1;
  const told = { type: "urn:hetlora:error:not_permitted", title: "", status: 403, detail: "no such device", code: "not_permitted" };
  return Response.json(told, { status: 403 });
}`;

/** A worker as the page's own, without memory. */
const WORKER_WITHOUT_MEMORY =
  "import './worker.js'; WebAssembly.Memory = function () { throw new RangeError('could not allocate memory') }";

const text = (page: Page, id: string) => page.$eval(`#${id}`, (found) => found.textContent ?? "");

async function waitFor(page: Page, id: string, pattern: string): Promise<string> {
  await page.waitForFunction(
    (place: string, wanted: string) => new RegExp(wanted).test(document.getElementById(place)?.textContent ?? ""),
    { timeout: 60_000, polling: 50 },
    id,
    pattern,
  );
  return text(page, id);
}

function served(dist: string): Promise<Server> {
  // All but the index lies in the folder of the build.
  const build = readdirSync(dist, { withFileTypes: true }).find((own) => own.isDirectory())!.name;
  const server = createServer((request, response) => {
    const name = request.url === "/page/" ? "index.html" : (/^\/page\/(?:[0-9a-f]+\/)?([a-z.-]+)$/.exec(request.url ?? "")?.[1] ?? "");
    const type = TYPES[extname(name)];
    if (!type) return void response.writeHead(404).end();
    const body = name === "lacking.js" ? WORKER_WITHOUT_MEMORY : readFileSync(join(dist, name === "index.html" ? "" : build, name));
    response.writeHead(200, { "Content-Type": type }).end(body);
  });
  return new Promise((resolve) => server.listen(0, "127.0.0.1", () => resolve(server)));
}

async function opened(browser: Browser, url: string, script = ""): Promise<Page> {
  const page = await (await browser.createBrowserContext()).newPage();
  if (script) await page.evaluateOnNewDocument(script);
  await page.goto(url, { waitUntil: "load" });
  return page;
}

async function lacking(browser: Browser, url: string): Promise<Record<string, string>> {
  const said: Record<string, string> = {};
  for (const [name, script] of Object.entries(LACKING)) {
    const page = await opened(browser, url, script);
    said[name] = await waitFor(page, "status", ".");
    if (await page.$("#start:enabled")) said[name] = `it can be started: ${said[name]}`;
    await page.browserContext().close();
  }
  return said;
}

/** The least contrast of words to what they stand on, in a scheme of colours (WCAG 2, at least 4.5). */
async function contrast(page: Page, scheme: string): Promise<number> {
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  return page.evaluate(() => {
    const luminance = (color: string) => {
      const [red, green, blue] = color.match(/\d+/g)!.slice(0, 3).map((own) => {
        const share = Number(own) / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      }) as [number, number, number];
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
    };
    const paper = luminance(getComputedStyle(document.body).backgroundColor);
    const words = [...document.querySelectorAll("h1, h2, h3, p, label, code, li, figcaption, .why")];
    return Math.min(...words.map((own) => {
      const ink = luminance(getComputedStyle(own).color);
      return (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    }));
  });
}

/** A page without a service: what is entered is kept at its start, and it goes on visiting until it is stopped. */
async function started(page: Page) {
  await page.type("#population", "people");
  await page.type("#examples", "yes\tof course");
  await page.$eval("#examples", (area) => ((area as HTMLTextAreaElement).value = "yes\tof course\nno\tnot now"));
  await page.focus("#start");
  await page.keyboard.press("Enter");
  const said = await waitFor(page, "log", "the next try is in");
  const focus = await page.evaluate(() => document.activeElement?.id);
  await page.keyboard.press("Enter");
  await waitFor(page, "log", "stopped");
  return { said, focus, count: await text(page, "count"), canStart: (await page.$("#start:enabled")) !== null };
}

/** A page that was stopped while its start was still keeping things: whether it is at work once it is loaded anew. */
async function stoppedAtOnce(page: Page): Promise<boolean> {
  await page.type("#population", "people");
  await page.$eval("#examples", (area) => ((area as HTMLTextAreaElement).value = "yes\tof course"));
  await page.evaluate(() => ["start", "stop"].forEach((id) => document.getElementById(id)!.click()));
  await waitFor(page, "count", "^1 kept");
  await page.waitForSelector("#start:enabled");
  await page.reload({ waitUntil: "load" });
  await waitFor(page, "count", "^1 kept");
  return (await page.$("#stop:enabled")) !== null;
}

/** A page that its service refuses: what it says, and how often it asks again by itself once it is loaded anew. */
async function refused(page: Page) {
  const asked = () => page.evaluate(() => (globalThis as unknown as { asked: number }).asked);
  await page.$eval("#population", (field) => ((field as HTMLInputElement).value = "people"));
  await page.click("#start");
  const said = await waitFor(page, "log", "no such device");
  await page.waitForSelector("#start:enabled");
  const before = await asked();
  await page.reload({ waitUntil: "load" });
  await page.waitForSelector("#keep:enabled");
  await new Promise((resolve) => setTimeout(resolve, 1000));
  return { said, before, after: await asked() };
}

/** A worker that ends as it measures the device, as a browser ends one that takes too much memory. */
async function withoutWorker(page: Page): Promise<string> {
  page.on("workercreated", (worker) => {
    const end = async () => {
      const isHeld = async () => (await navigator.locks.query()).held!.some(({ name }) => name!.startsWith("hetlora-worker-"));
      while (!(await isHeld())) await new Promise((resolve) => setTimeout(resolve, 5));
      self.close();
    };
    worker.evaluate(end).catch(() => undefined); // nobody is left to answer
  });
  await page.type("#population", "people");
  await page.click("#start");
  return waitFor(page, "log", "the next try is in");
}

async function withoutRoom(page: Page, origin: string): Promise<string> {
  const session = await page.createCDPSession();
  await session.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 1000 });
  await page.$eval("#examples", (area) => ((area as HTMLTextAreaElement).value = `yes\t${"of course ".repeat(200_000)}`));
  await page.click("#keep");
  return waitFor(page, "status", ".");
}

/** What is pressed and filled in, as it is told to who does not see it. */
async function controls(page: Page) {
  const roles = ["textbox", "checkbox", "button"];
  const found = (node: SerializedAXNode): SerializedAXNode[] => [
    ...(roles.includes(node.role) ? [node] : []), ...(node.children ?? []).flatMap(found),
  ];
  const whole = await page.accessibility.snapshot({ interestingOnly: true });
  return found(whole!).map(({ role, name, description, disabled }) => ({
    role, name: name?.trim(), description: description ?? "", isDisabled: disabled ?? false,
  }));
}

async function look({ chromium, profile, dist }: Asked) {
  const server = await served(dist);
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const url = `${origin}/page/`;
  const args = ["--no-sandbox", "--disable-dev-shm-usage"];
  const browser = await launch({ executablePath: chromium, userDataDir: profile, args });
  const ready = async (script = "") => {
    const page = await opened(browser, url, script);
    await page.waitForSelector("#start:enabled");
    return page;
  };
  try {
    const page = await ready();
    const contrasts = { light: await contrast(page, "light"), dark: await contrast(page, "dark") };
    return {
      contrasts,
      controls: await controls(page),
      untold: await controls(await ready("delete Navigator.prototype.getBattery")),
      told: await controls(await ready("Object.defineProperty(NetworkInformation.prototype, 'type', { get: () => 'wifi' })")),
      lacking: await lacking(browser, url),
      started: await started(page),
      isAtWorkAgain: await stoppedAtOnce(await ready()),
      refused: await refused(await ready(REFUSING)),
      withoutRoom: await withoutRoom(await ready(), origin),
      withoutWorker: await withoutWorker(await ready()),
    };
  } finally {
    await browser.close();
    server.close();
  }
}

console.log(JSON.stringify(await look(JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Asked)));
