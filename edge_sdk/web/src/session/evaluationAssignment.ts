// One evaluation, from the offer to the receipt.
import { storedIfRoom, type Database } from "../database/database";
import { HetloraError } from "../errors/errors";
import type { EvaluationReport } from "../messages/device";
import { Assignment, told } from "./assignment";
import { evaluateLocally } from "./evaluation";
import type { Taken } from "./updates";
import type { Visit } from "./visit";

const BEGUN = "evaluation/begun";
const LEFT_ALONE_SECONDS = 3600;

/**
 * Takes an offer, scores what is held out, and reports; nothing else leaves the device. Nothing of it is kept but
 * that it was begun: one whose page was closed, for its memory perhaps, is not done again within the hour.
 */
export class EvaluationAssignment extends Assignment {
  protected async work(): Promise<Visit> {
    const { tools, offer } = this;
    await tools.evaluations.check();
    const taken = await this.taken(await this.agree());
    const report = await tools.evaluations.trying(() => this.evaluate(taken));
    const receipt = await tools.service.reportEvaluation(offer.assignment_id, report);
    await this.dropOtherBundles();
    tools.onEvent({ kind: "evaluated", report, receipt });
    return { offer, choice: this.choice, ...told(receipt), evaluation: report };
  }

  private async evaluate(taken: Taken): Promise<EvaluationReport> {
    const scorer = await this.tools.trainers.openScorer(this.opening(taken));
    try {
      return await evaluateLocally(scorer, {
        maxSeconds: this.secondsLeft, timer: this.tools.timer, mayGoOn: () => this.check(),
      });
    } finally {
      await scorer.close();
    }
  }
}

/** What is known of evaluations that ended with their page. */
export class EvaluationTries {
  constructor(
    private readonly database: Database,
    /** Unix seconds. */
    private readonly clock: () => number,
  ) {}

  /** Throws `device_too_small` where one did within the last hour. */
  async check(): Promise<void> {
    const begun = await this.database.read(BEGUN);
    const passed = typeof begun === "number" ? this.clock() - begun : Infinity;
    if (passed < 0 || passed >= LEFT_ALONE_SECONDS) return;
    throw new HetloraError("device_too_small", "the page ended in an evaluation within the last hour", {
      got: `${Math.floor(passed)} s ago`, expected: `${LEFT_ALONE_SECONDS} s`,
    });
  }

  /** Does it, and notes that it is under way until it has ended in any way but with its page. A full database notes none. */
  async trying<T>(work: () => Promise<T>): Promise<T> {
    await this.note(this.clock());
    try {
      return await work();
    } finally {
      await this.note(undefined);
    }
  }

  private async note(begun: number | undefined): Promise<void> {
    await storedIfRoom(() => this.database.write(new Map([[BEGUN, begun]])));
  }
}
