// What the page shows: words and curves put into its elements.
import type { CapabilityReport, Offer } from "../messages/device";
import { boundInWords } from "../planning/explanation";
import type { RankChoice } from "../planning/planner";
import type { SessionEvent, Visit } from "../session/visit";
import type { TrainingEvent } from "../training/onnxTrainer";
import { drawCurve, type Point } from "./curve";

const MIB = 2 ** 20;

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

/** The curves of one training; made anew for each. */
class Curves {
  private readonly losses: Point[] = [];
  private readonly accuracies: Point[] = [];

  take(event: TrainingEvent): void {
    if (event.kind === "step") {
      this.losses.push({ step: event.step, value: event.loss });
      drawCurve(element("loss"), this.losses, event.steps, "loss");
      say("progress", `step ${event.step} of ${event.steps}, loss ${event.loss.toFixed(4)}`);
    } else if (event.score.accuracy !== null) {
      this.accuracies.push({ step: event.step, value: event.score.accuracy });
      drawCurve(element("accuracy"), this.accuracies, event.steps, "accuracy");
      const first = this.accuracies[0]!;
      say("score", `accuracy ${percent(first.value)} after step ${first.step}, ${percent(event.score.accuracy)} now`);
    }
  }
}

/** Shows what happens on a visit. */
export class View {
  private curves = new Curves();

  take(event: SessionEvent | TrainingEvent): void {
    if (event.kind === "step" || event.kind === "score") return this.curves.take(event);
    if (event.kind === "rank_chosen") {
      this.curves = new Curves();
      for (const id of ["loss", "accuracy"]) element(id).replaceChildren();
      say("score", "");
    }
    const words = inWords(event);
    if (words !== null) this.note(words);
  }

  /** How a visit ended. */
  ended(visit: Visit): void {
    this.note(`${visit.outcome.replaceAll("_", " ")}: ${visit.reason}`);
    if (visit.outcome === "accepted") say("merged", String(Number(element("merged").textContent) + 1));
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
      say("plan", planInWords(event.choice, event.offer));
      return `training at rank ${event.choice.rank}`;
    case "resumed":
      return `resumed after step ${event.step}`;
    case "rank_pruned":
      return `rank ${event.oldRank} was pruned to ${event.newRank}`;
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

function planInWords(choice: RankChoice, offer: Offer): string {
  const { step, forecast } = choice;
  return (
    `rank ${choice.rank} of up to ${offer.max_rank}: ${boundInWords(choice)}. About ${forecast.steps} steps of ` +
    `${step.batch} examples, ${step.microBatch} at a time, texts of up to ${choice.maxTokens} tokens.`
  );
}

function percent(share: number): string {
  return `${(100 * share).toFixed(0)} %`;
}
