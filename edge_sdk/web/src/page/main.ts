// The page: what the user sets, and visits to the service for as long as it is switched on.
import { IndexedDatabase } from "../database/indexed";
import { toldByBrowser } from "../probe/browser";
import { keepVisiting } from "../session/keepVisiting";
import type { Visit } from "../session/visit";
import { browserSurroundings } from "../transport/transport";
import { AnswerBox } from "./answers";
import { openClient, startWorker, type PageClient } from "./client";
import { checkSize, Examples, linesOf, parsedExamples } from "./examples";
import { checkBrowser } from "./requirements";
import { checkPopulation, keepSettings, keptSettings, type PageSettings } from "./settings";
import { element, say, showCapabilities, View } from "./view";

const input = (id: string) => element<HTMLInputElement>(id);
const box = () => element<HTMLTextAreaElement>("examples");
const wordsOf = (error: unknown) => (error instanceof Error && error.message ? error.message : String(error));

class Page {
  private ending: AbortController | null = null;
  private opened: PageClient | null = null;
  /** The lines in the box as they are kept. */
  private keptLines = "";

  constructor(
    private readonly database: IndexedDatabase,
    private readonly examples: Examples,
    private settings: PageSettings,
    private readonly answers: AnswerBox,
    private readonly view = new View(),
  ) {}

  async show(): Promise<void> {
    const { population, enrolmentToken, onlyWhileCharging, onlyUnmetered, isRunning } = this.settings;
    input("population").value = population;
    input("token").value = enrolmentToken;
    const told = toldByBrowser();
    showCondition("charging", onlyWhileCharging, told.charging ? "" : "this browser does not tell whether it charges");
    showCondition("unmetered", onlyUnmetered, told.network ? "" : "this browser does not tell what network it is on");
    const own = await this.examples.all();
    box().value = this.keptLines = linesOf(own);
    say("count", `${own.length} kept`);
    // Disabled until here: what is set before would be overwritten.
    element<HTMLButtonElement>("keep").disabled = false;
    element("keep").onclick = () => this.told(() => this.keepExamples());
    input("file").onchange = () => this.told(() => this.readFile());
    element("start").onclick = () => this.told(() => this.start());
    element("stop").onclick = () => this.told(() => this.stop());
    this.showSwitch();
    if (isRunning) await this.told(() => this.start());
  }

  /** Shows what goes wrong where the user sees it. */
  private async told(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.view.note(wordsOf(error));
    }
  }

  private async readFile(): Promise<void> {
    const file = input("file").files?.[0];
    if (!file) return;
    checkSize(file.size);
    box().value = await file.text();
  }

  private async keepExamples(): Promise<void> {
    const lines = box().value;
    const own = parsedExamples(lines);
    await this.examples.keep(own);
    this.keptLines = lines;
    say("count", `${own.length} kept`);
  }

  private async start(): Promise<void> {
    if (this.ending) return;
    const ending = (this.ending = new AbortController());
    this.showSwitch();
    try {
      // Who enters examples and starts means these.
      if (box().value !== this.keptLines) await this.keepExamples();
      if (ending.signal.aborted) return;
      const entered = {
        population: input("population").value.trim(),
        enrolmentToken: input("token").value.trim(),
        onlyWhileCharging: input("charging").checked,
        onlyUnmetered: input("unmetered").checked,
      };
      checkPopulation(entered.population);
      await this.told(() => this.keep({ ...entered, isRunning: true }));
      await this.visit(ending.signal);
    } finally {
      this.ending = null;
      this.showSwitch();
    }
  }

  /** Stops first: it has to, also where nothing can be kept. */
  private async stop(): Promise<void> {
    this.ending?.abort();
    await this.keep({ isRunning: false });
  }

  private async visit(stop: AbortSignal): Promise<void> {
    const visitOnce = async () => {
      this.opened ??= await this.open(stop);
      return this.opened.client.runOnce();
    };
    try {
      await keepVisiting(visitOnce, stop, browserSurroundings(stop), {
        onVisit: (visit) => this.ended(visit),
        onFault: (error, seconds) => this.view.note(`${wordsOf(error)}; the next try is in ${Math.ceil(seconds)} s`),
      });
    } catch (error) {
      // No waiting mends it, and no reload: the page does not begin again by itself.
      await this.told(() => this.keep({ isRunning: false }));
      throw error;
    } finally {
      this.opened?.close();
      this.opened = null;
    }
    this.view.note("stopped; what was done is kept");
  }

  private ended(visit: Visit): void {
    this.view.ended(visit);
    void this.told(() => this.answers.refresh());
  }

  private async open(stop: AbortSignal): Promise<PageClient> {
    const opened = await openClient(this.database, this.examples, this.settings, stop, (event) => this.view.take(event));
    try {
      say("identity", opened.client.deviceId);
      showCapabilities(await opened.capabilities());
    } catch (error) {
      opened.close();
      throw error;
    }
    return opened;
  }

  private async keep(changed: Partial<PageSettings>): Promise<void> {
    this.settings = { ...this.settings, ...changed };
    await keepSettings(this.database, changed);
  }

  /** One of both buttons is enabled; the focus goes along, as a disabled one has none. */
  private showSwitch(): void {
    const [start, stop] = [element<HTMLButtonElement>("start"), element<HTMLButtonElement>("stop")];
    const hadFocus = [start, stop].includes(document.activeElement as HTMLButtonElement);
    start.disabled = this.ending !== null;
    stop.disabled = this.ending === null;
    if (hadFocus) (start.disabled ? stop : start).focus();
  }
}

/** Shows a condition of the user's; one that the browser cannot tell is off, with the reason beside it. */
function showCondition(id: string, isAsked: boolean, whyNot: string): void {
  input(id).checked = isAsked && !whyNot;
  input(id).disabled = whyNot !== "";
  say(`${id}-why`, whyNot);
}

async function begin(): Promise<void> {
  await checkBrowser(startWorker);
  const database = await IndexedDatabase.open("hetlora");
  // Else a browser that is short of room may clear it, and the device would be another one.
  void navigator.storage?.persist?.();
  const answers = await AnswerBox.open(database);
  await new Page(database, new Examples(database), await keptSettings(database), answers).show();
}

begin().catch((error: unknown) => say("status", wordsOf(error)));
