// The page: what the user sets, and visits to the service for as long as it is switched on.
import { IndexedDatabase } from "../database/indexed";
import type { EdgeClient } from "../client";
import { isError } from "../errors/errors";
import { AnswerBox } from "./answers";
import { openClient } from "./client";
import { Examples, linesOf, parsedExamples } from "./examples";
import { keepSettings, keptSettings, type PageSettings } from "./settings";
import { element, say, showCapabilities, View } from "./view";

const LEAST_PAUSE_SECONDS = 1;
const AWAY_SECONDS = 60;

class Page {
  private ending: AbortController | null = null;
  private wake: () => void = () => undefined;

  constructor(
    private readonly database: IndexedDatabase,
    private readonly examples: Examples,
    private settings: PageSettings,
    private readonly box: AnswerBox,
    private readonly view = new View(),
  ) {}

  async show(): Promise<void> {
    const { population, enrolmentToken, onlyWhileCharging, onlyUnmetered, isRunning } = this.settings;
    element<HTMLInputElement>("population").value = population;
    element<HTMLInputElement>("token").value = enrolmentToken;
    element<HTMLInputElement>("charging").checked = onlyWhileCharging;
    element<HTMLInputElement>("unmetered").checked = onlyUnmetered;
    const own = await this.examples.all();
    element<HTMLTextAreaElement>("examples").value = linesOf(own);
    say("count", `${own.length} kept`);
    // Disabled until here: what is set before would be overwritten.
    element<HTMLButtonElement>("keep").disabled = false;
    element("keep").onclick = () => this.told(() => this.keepExamples());
    element<HTMLInputElement>("file").onchange = () => this.told(() => this.readFile());
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
      this.view.note(error instanceof Error ? error.message : String(error));
    }
  }

  private async readFile(): Promise<void> {
    const file = element<HTMLInputElement>("file").files?.[0];
    if (file) element<HTMLTextAreaElement>("examples").value = await file.text();
  }

  private async keepExamples(): Promise<void> {
    const own = parsedExamples(element<HTMLTextAreaElement>("examples").value);
    await this.examples.keep(own);
    say("count", `${own.length} kept`);
  }

  private async start(): Promise<void> {
    if (this.ending) return;
    await this.keep({
      population: element<HTMLInputElement>("population").value.trim(),
      enrolmentToken: element<HTMLInputElement>("token").value.trim(),
      onlyWhileCharging: element<HTMLInputElement>("charging").checked,
      onlyUnmetered: element<HTMLInputElement>("unmetered").checked,
      isRunning: true,
    });
    this.ending = new AbortController();
    this.showSwitch();
    try {
      await this.visit(this.ending.signal);
    } finally {
      this.ending = null;
      this.showSwitch();
    }
  }

  private async stop(): Promise<void> {
    await this.keep({ isRunning: false });
    this.ending?.abort();
    this.wake();
  }

  private async visit(stop: AbortSignal): Promise<void> {
    const opened = await openClient(this.database, this.examples, this.settings, stop, (event) => this.view.take(event));
    try {
      say("identity", opened.client.deviceId);
      showCapabilities(await opened.capabilities());
      while (!stop.aborted) await this.paused(await this.once(opened.client), stop);
    } finally {
      opened.close();
    }
    this.view.note("stopped; what was done is kept");
  }

  /** One visit; answers after how many seconds the next is due. */
  private async once(client: EdgeClient): Promise<number> {
    try {
      const visit = await client.runOnce();
      this.view.ended(visit);
      await this.box.refresh();
      return visit.retryAfterSeconds;
    } catch (error) {
      if (!isError(error, "service_away")) throw error;
      this.view.note(error.message);
      return error.retryAfterSeconds || AWAY_SECONDS;
    }
  }

  private paused(seconds: number, stop: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
      if (stop.aborted) return resolve();
      setTimeout(resolve, 1000 * Math.max(seconds, LEAST_PAUSE_SECONDS));
    });
  }

  private async keep(changed: Partial<PageSettings>): Promise<void> {
    this.settings = { ...this.settings, ...changed };
    await keepSettings(this.database, this.settings);
  }

  private showSwitch(): void {
    element<HTMLButtonElement>("start").disabled = this.ending !== null;
    element<HTMLButtonElement>("stop").disabled = this.ending === null;
  }
}

async function begin(): Promise<void> {
  const database = await IndexedDatabase.open("hetlora");
  // Else a browser that is short of room may clear it, and the device would be another one.
  void navigator.storage?.persist?.();
  const box = await AnswerBox.open(database);
  await new Page(database, new Examples(database), await keptSettings(database), box).show();
}

begin().catch((error: unknown) => say("status", error instanceof Error ? error.message : String(error)));
