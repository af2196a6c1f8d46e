// Drives the page in headless Chromium as tests/e2e/test_browser_client.py asks, and prints what the page shows.
import { readFileSync } from "node:fs";
import { launch, type Page } from "puppeteer-core";

interface Asked {
  url: string;
  chromium: string;
  /** Where the browser keeps what a page keeps. */
  profile: string;
  population: string;
  token: string;
  /** Lines of label, tab and text. */
  examples: string;
  /** The page is loaded anew once this step is done; null: never. */
  reload_after_step: number | null;
  /** A word of the log that ends the visit to the page. */
  until: string;
  seconds: number;
  /** Asked of each adapter that the page keeps then; null: nothing is. */
  question: string | null;
}

const text = (page: Page, id: string) => page.$eval(`#${id}`, (found) => found.textContent ?? "");

/** Waits until an element's text fits; answers the text. */
async function waitFor(page: Page, id: string, pattern: string, seconds: number): Promise<string> {
  await page.waitForFunction(
    (place: string, wanted: string) => new RegExp(wanted).test(document.getElementById(place)?.textContent ?? ""),
    { timeout: 1000 * seconds, polling: 20 },
    id,
    pattern,
  );
  return text(page, id);
}

/** What the page answers, by the words under which it offers an adapter. */
async function answersTo(question: string, page: Page): Promise<Record<string, string>> {
  await page.waitForSelector("#ask:enabled");
  await page.type("#question", question);
  const offered = await page.$$eval("#adapter option", (own) => own.map(({ value, textContent }) => [value, textContent!] as const));
  const answers: Record<string, string> = {};
  for (const [value, words] of offered) {
    await page.select("#adapter", value);
    await page.click("#ask");
    answers[words] = await waitFor(page, "answer", "%|;|unavailable", 60);
  }
  return answers;
}

/** Fills in what a user would, and starts. */
async function begin(asked: Asked, page: Page): Promise<void> {
  await page.goto(asked.url, { waitUntil: "load" });
  await page.waitForSelector("#start:enabled"); // then the page has read what it keeps
  await page.type("#population", asked.population);
  await page.type("#token", asked.token);
  await page.$eval("#examples", (area, lines) => ((area as HTMLTextAreaElement).value = lines), asked.examples);
  await page.click("#keep");
  await waitFor(page, "count", `^${asked.examples.split("\n").length} kept`, 10);
  await page.click("#start");
}

/** Waits until a step of the training is done. */
async function waitForStep(page: Page, step: number, seconds: number): Promise<void> {
  await page.waitForFunction(
    (least: number) => Number(/step (\d+)/.exec(document.getElementById("progress")?.textContent ?? "")?.[1]) >= least,
    { timeout: 1000 * seconds, polling: 20 },
    step,
  );
}

/** What stands on the page. */
async function told(page: Page) {
  const shown: Record<string, string> = {};
  for (const id of ["identity", "device", "plan", "progress", "score", "status", "merged", "count"]) {
    shown[id] = await text(page, id);
  }
  return {
    shown,
    log: await page.$$eval("#log li", (lines) => lines.map((line) => line.textContent ?? "")),
    curves: await page.$$eval("svg", (pictures) => pictures.map((own) => own.getAttribute("aria-label") ?? "")),
    isIsolated: await page.evaluate(() => crossOriginIsolated),
  };
}

async function drive(asked: Asked) {
  const faults: string[] = [];
  const browser = await launch({
    executablePath: asked.chromium,
    userDataDir: asked.profile,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
  try {
    const page = await browser.newPage();
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (said) => said.type() === "error" && faults.push(said.text()));
    await begin(asked, page);
    try {
      if (asked.reload_after_step !== null) {
        await waitForStep(page, asked.reload_after_step, asked.seconds);
        await page.reload({ waitUntil: "load" });
      }
      await waitFor(page, "log", asked.until, asked.seconds);
    } catch (error) {
      faults.push(`waited in vain: ${error}`);
    }
    const answers = asked.question === null ? {} : await answersTo(asked.question, page);
    return { ...(await told(page)), answers, faults };
  } finally {
    await browser.close();
  }
}

console.log(JSON.stringify(await drive(JSON.parse(readFileSync(process.argv[2]!, "utf8")) as Asked)));
