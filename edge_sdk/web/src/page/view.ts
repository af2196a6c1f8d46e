// What the page shows: words and curves put into its elements.
import type { CapabilityReport, Offer } from "../messages/device";
import { boundInWords } from "../planning/explanation";
import { MIB } from "../planning/forecast";
import type { RankChoice } from "../planning/planner";
import type { SessionEvent, Visit } from "../session/visit";
import { drawCurve, withPoint, type Point } from "./curve";

const KEPT = "hetlora-shown";

/** An element of the page by its id. */
export function element<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

export function say(id: string, words: string): void {
  element(id).textContent = words;
}

/** What the device can do, in words. */
export function showCapabilities(report: CapabilityReport): void {
  const threads = report.cores === 1 ? "one thread" : `${report.cores} threads`;
  const rate = (report.matmul_flops_per_second / 1e9).toFixed(1);
  say(
    "device",
    `${threads} with ${rate} GFLOP/s, ${(report.memory_available_bytes / MIB).toFixed(0)} MiB of memory, ` +
      `${(report.disk_free_bytes / MIB).toFixed(0)} MiB of room, network ${report.network ?? "unknown"}`,
  );
}

/** What the page shows of one training, kept over a reload of its tab. */
interface Shown {
  plan: string;
  steps: number;
  losses: Point[];
  accuracies: Point[];
}

const NOTHING: Shown = { plan: "", steps: 0, losses: [], accuracies: [] };

function kept(): Shown {
  try {
    return { ...NOTHING, ...(JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") as Partial<Shown>) };
  } catch {
    return NOTHING; // no storage, or nothing that was written here
  }
}

/** A training does not end because something of it cannot be shown. */
function safely(show: () => void): void {
  try {
    show();
  } catch (error) {
    console.error(error);
  }
}

/** Shows what happens on a visit. */
export class View {
  private shown = NOTHING;

  constructor() {
    addEventListener("pagehide", () => safely(() => sessionStorage.setItem(KEPT, JSON.stringify(this.shown))));
  }

  take(event: SessionEvent): void {
    safely(() => this.taken(event));
  }

  private taken(event: SessionEvent): void {
    const isTraining = event.kind === "rank_chosen" && event.offer.kind === "train";
    if (isTraining) this.show({ ...NOTHING, plan: planInWords(event.choice, event.concessions, event.offer) });
    if (event.kind === "resumed") this.show(upTo(event.step, kept()));
    if (event.kind === "step_done") {
      const losses = withPoint(this.shown.losses, { step: event.step, value: event.loss });
      this.show({ ...this.shown, steps: event.steps, losses });
    } else if (event.kind === "held_out_scored") {
      const { example_count, correct_count } = event.report;
      if (correct_count === null) return;
      const accuracies = withPoint(this.shown.accuracies, { step: event.step, value: correct_count / example_count });
      this.show({ ...this.shown, steps: event.steps, accuracies });
    } else {
      const words = inWords(event);
      if (words !== null) this.note(words);
    }
  }

  private show(shown: Shown): void {
    const { plan, steps, losses, accuracies } = (this.shown = shown);
    say("plan", plan);
    drawCurve(element("loss"), losses, steps, "loss");
    drawCurve(element("accuracy"), accuracies, steps, "accuracy");
    const [loss, first, last] = [losses.at(-1), accuracies[0], accuracies.at(-1)];
    say("progress", loss ? `step ${loss.step} of ${steps}, loss ${loss.value.toFixed(4)}` : "");
    const after = first && last && `accuracy ${percent(first.value)} after step ${first.step}, ${percent(last.value)} now`;
    say("score", after ?? "");
  }

  /** How a visit ended. */
  ended(visit: Visit): void {
    safely(() => {
      this.note(`${visit.outcome.replaceAll("_", " ")}: ${visit.reason}`);
      if (visit.outcome === "accepted") say("merged", String(Number(element("merged").textContent) + 1));
    });
  }

  note(words: string): void {
    say("status", words);
    const line = document.createElement("li");
    line.textContent = `${new Date().toTimeString().slice(0, 8)} ${words}`;
    const log = element("log");
    log.prepend(line);
    while (log.children.length > 50) log.lastElementChild?.remove();
  }
}

function inWords(event: SessionEvent): string | null {
  switch (event.kind) {
    case "awaiting_approval":
      return `an operator has to accept this device: ${event.deviceId}`;
    case "checked_in":
      return event.answer.offer === null ? null : `offered round ${event.answer.offer.round_index}`;
    case "rank_chosen":
      return `${event.offer.kind === "train" ? "training" : "scoring"} at rank ${event.choice.rank}`;
    case "resumed":
      return `resumed after step ${event.step}`;
    case "rank_pruned":
      return `rank ${event.oldRank} was pruned to ${event.newRank}`;
    case "evaluated":
      return `scored ${event.report.example_count} examples that are held out`;
    case "uploaded":
      return `${event.sizeBytes} bytes uploaded`;
    case "given_back":
      return `given back (${event.code}): ${event.message}`;
    case "given_up":
      return "the service has given this work to others";
    default:
      return null;
  }
}

/** What the device can afford, and why it is no more. */
export function planInWords(choice: RankChoice, concessions: readonly string[], offer: Offer): string {
  const { step, forecast } = choice;
  return (
    `rank ${choice.rank} of up to ${offer.max_rank}: ${[boundInWords(choice), ...concessions].join("; ")}. ` +
    `About ${forecast.steps} steps of ${step.batch} examples, texts of up to ${choice.maxTokens} tokens.`
  );
}

/** What of a training had been shown up to a step. */
function upTo(step: number, shown: Shown): Shown {
  const isBefore = (point: Point) => point.step <= step;
  return { ...shown, losses: shown.losses.filter(isBefore), accuracies: shown.accuracies.filter(isBefore) };
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
