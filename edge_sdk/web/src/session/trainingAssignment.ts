// One training assignment, from the offer to the receipt.
import { secondsOf } from "../planning/forecast";
import { Assignment, told } from "./assignment";
import type { Update } from "./assignmentStore";
import { plannerOf } from "./choosing";
import { HeldOutScores } from "./heldOut";
import type { LocalTrainer } from "./localTrainers";
import { countedStart, TrainingLoop, type TrainingResult } from "./training";
import { keptUpdate, noteDelivered, type Taken } from "./updates";
import { NOT_ALLOWED_SECONDS, type Visit } from "./visit";

/** Trains on this device's examples, and delivers what was learned. */
export class TrainingAssignment extends Assignment {
  protected async work(): Promise<Visit> {
    const { assignments } = this.tools;
    await assignments.offered(this.offer);
    return this.deliver((await assignments.update()) ?? (await this.makeUpdate()));
  }

  private async makeUpdate(): Promise<Update> {
    // Fetching counts as well: a page may be closed for the memory that a bundle takes while it comes.
    return countedStart(this.tools.assignments, async () => {
      const taken = await this.beginOrResume();
      return keptUpdate(this.offer, taken, await this.train(taken), this.tools);
    });
  }

  private async beginOrResume(): Promise<Taken> {
    const { assignments, bundles } = this.tools;
    const agreed = await assignments.agreed();
    if (!agreed) {
      await assignments.beginAnew();
      const fresh = await this.agree();
      this.received(fresh.terms, fresh.manifest, fresh.bytes); // nothing is kept that cannot be read
      await assignments.taken(fresh.terms, fresh.bytes);
      return this.taken(fresh);
    }
    await this.checkStart();
    const manifest = await bundles.manifest(agreed.terms.bundle);
    // As agreed, in smaller parts of a batch where there is less memory than there was.
    const planner = await plannerOf(this.offer, manifest, this.tools);
    const rows = Math.min(
      agreed.terms.micro_batch,
      planner.rowsFor(agreed.terms.rank, agreed.terms.training.max_tokens),
    );
    return this.taken({ terms: { ...agreed.terms, micro_batch: rows }, manifest, bytes: agreed.received });
  }

  private async train(taken: Taken): Promise<TrainingResult> {
    const { tools } = this;
    const trainer = await tools.trainers.open(this.opening(taken));
    const { steps } = taken.terms.training;
    const limits = {
      steps,
      secondsLeft: () => this.secondsLeft,
      timer: tools.timer,
      onResumed: (step: number) => tools.onEvent({ kind: "resumed", step }),
      onStep: (step: number, loss: number) => {
        tools.onEvent({ kind: "step_done", step, steps, loss });
        if (step < steps) this.check();
      },
    };
    try {
      return await new TrainingLoop(trainer, tools.assignments, limits, this.scores(trainer, taken), taken.begun).run();
    } finally {
      await trainer.close();
    }
  }

  private scores(trainer: LocalTrainer, { terms: { training } }: Taken): HeldOutScores {
    const { timer, onEvent } = this.tools;
    return new HeldOutScores(trainer.heldOut, {
      training,
      plannedSeconds: this.choice ? secondsOf(this.choice.forecast) : 0,
      secondsLeft: () => this.secondsLeft,
      timer,
      mayGoOn: () => this.check(),
      onScore: (step, report) => onEvent({ kind: "held_out_scored", step, steps: training.steps, report }),
    });
  }

  private async deliver(update: Update): Promise<Visit> {
    const { offer, tools } = this;
    const reason = tools.conditions.metered(offer.conditions);
    const about = { offer, choice: this.choice };
    if (reason !== null) return { ...about, outcome: "not_allowed", reason, retryAfterSeconds: NOT_ALLOWED_SECONDS };
    await tools.uploads.deliver(offer.assignment_id, update.bytes, () => this.checkStop());
    tools.onEvent({ kind: "uploaded", sizeBytes: update.bytes.length });
    const receipt = await tools.service.submit(offer.assignment_id, update.report);
    await noteDelivered(update, receipt.state === "accepted", tools);
    await this.dropOtherBundles();
    tools.onEvent({ kind: "submitted", report: update.report, receipt });
    return { ...about, ...told(receipt), report: update.report };
  }
}
