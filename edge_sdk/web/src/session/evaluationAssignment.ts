// One evaluation, from the offer to the receipt.
import type { EvaluationReport } from "../messages/device";
import { Assignment, told } from "./assignment";
import { evaluateLocally } from "./evaluation";
import type { Taken } from "./updates";
import type { Visit } from "./visit";

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
