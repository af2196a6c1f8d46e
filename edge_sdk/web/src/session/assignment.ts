// One training assignment, from the offer to the receipt.
import { HetloraError, isError } from "../errors/errors";
import type { Offer, Receipt } from "../messages/device";
import type { RankChoice } from "../planning/planner";
import type { Update } from "./assignmentStore";
import { chooseBundle, plannerOf } from "./choosing";
import type { Equipment } from "./equipment";
import { checkPlan, fetchReceived, readReceived } from "./plans";
import type { Terms } from "./terms";
import { countedStart, LocalTraining, type TrainingResult } from "./training";
import { keptUpdate, noteDelivered, takenOf, type Taken } from "./updates";
import { DEFAULT_RETRY_SECONDS, failureOf, NOT_ALLOWED_SECONDS, outcomeOf, type Visit } from "./visit";

/** An offer that is worked on; used once. */
export class TrainingAssignment {
  private choice: RankChoice | null = null;
  private readonly cameAt: number;
  private readonly receivedBefore: number;

  constructor(
    private readonly offer: Offer,
    private readonly tools: Equipment,
  ) {
    this.cameAt = tools.timer();
    this.receivedBefore = tools.downloads.receivedBytes;
  }

  /**
   * Carries the assignment to its end; whatever stops it gives it back. Throws `service_away` and `stopped`: the
   * assignment stays this device's then, and a later visit goes on from what is kept.
   */
  async run(): Promise<Visit> {
    this.tools.downloads.mayGoOn = () => this.check();
    try {
      return await this.work();
    } catch (error) {
      if (isError(error, "service_away") || isError(error, "stopped")) throw error;
      return await this.giveBack(error);
    } finally {
      this.tools.downloads.mayGoOn = () => undefined;
    }
  }

  private async work(): Promise<Visit> {
    const { assignments } = this.tools;
    if (this.offer.kind !== "train") {
      throw new HetloraError("dependency_missing", "the browser client does not evaluate", { got: this.offer.kind });
    }
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
      return this.agree();
    }
    await this.checkStart();
    const manifest = await bundles.manifest(agreed.terms.bundle);
    // As agreed, in smaller parts of a batch where there is less memory than there was.
    const planner = await plannerOf(this.offer, manifest, this.tools);
    const rows = Math.min(
      agreed.terms.micro_batch,
      planner.rowsFor(agreed.terms.rank, agreed.terms.training.max_tokens),
    );
    const received = readReceived(agreed.received, manifest.adapter, this.plannedRank(agreed.terms));
    return takenOf(this.offer, { ...agreed.terms, micro_batch: rows }, manifest, received, this.tools);
  }

  /** Chooses bundle and rank, takes the offer at it, and fetches bundle and adapter. */
  private async agree(): Promise<Taken> {
    const { offer, tools } = this;
    await this.checkStart();
    const { bundle, manifest, choice } = await chooseBundle(offer, tools);
    this.choice = choice;
    tools.onEvent({ kind: "rank_chosen", choice, offer });
    const files = tools.trainer.filesOf(manifest);
    await tools.bundles.makeRoom(manifest, files);
    await tools.trainer.prepare();
    const variant = bundle === offer.bundle ? null : bundle.sha256;
    const plan = await tools.service.start(offer, { rank: choice.rank, variant });
    const training = { ...offer.training, max_tokens: choice.maxTokens };
    checkPlan(plan);
    tools.trainer.check(manifest, training, plan.adaptation);
    await tools.bundles.fetch(manifest, files);
    const bytes = await fetchReceived(plan, manifest.adapter, tools.downloads);
    const terms: Terms = {
      plan,
      bundle,
      rank: choice.rank,
      training,
      micro_batch: choice.step.microBatch,
      example_count: await tools.trainer.exampleCount(),
      downloaded_bytes: tools.downloads.receivedBytes - this.receivedBefore,
    };
    const received = readReceived(bytes, manifest.adapter, this.plannedRank(terms));
    await tools.assignments.taken(terms, bytes);
    return takenOf(offer, terms, manifest, received, tools);
  }

  /** The rank whose numbers this device has planned for. */
  private plannedRank(terms: Terms): number {
    return this.offer.trained_rank ?? terms.rank;
  }

  private async train({ terms, manifest, begun }: Taken): Promise<TrainingResult> {
    const { tools, offer } = this;
    const open = await tools.trainer.open({
      manifest,
      file: (path) => tools.bundles.file(manifest, path),
      adapter: begun,
      training: terms.training,
      adaptation: terms.plan.adaptation,
      microBatchRows: terms.micro_batch,
      seed: terms.plan.seed,
    });
    const { steps } = terms.training;
    const limits = {
      steps,
      maxSeconds: Math.max(0, offer.round_seconds - (tools.timer() - this.cameAt)),
      timer: tools.timer,
      onResumed: (step: number) => tools.onEvent({ kind: "resumed", step }),
      onStep: (step: number, loss: number) => {
        tools.onEvent({ kind: "step_done", step, steps, loss });
        if (step < steps) this.check();
      },
    };
    try {
      return await new LocalTraining(open, tools.assignments, limits, begun).run();
    } finally {
      await open.close();
    }
  }

  private async deliver(update: Update): Promise<Visit> {
    const { offer, tools } = this;
    const reason = tools.watch.metered(offer.conditions);
    const about = { offer, choice: this.choice };
    if (reason !== null) return { ...about, outcome: "not_allowed", reason, retryAfterSeconds: NOT_ALLOWED_SECONDS };
    await tools.uploads.deliver(offer.assignment_id, update.bytes, () => this.checkStop());
    tools.onEvent({ kind: "uploaded", sizeBytes: update.bytes.length });
    const receipt = await tools.service.submit(offer.assignment_id, update.report);
    await noteDelivered(update, receipt.state === "accepted", tools);
    tools.onEvent({ kind: "submitted", report: update.report, receipt });
    return { ...about, ...told(receipt), report: update.report };
  }

  private async giveBack(error: unknown): Promise<Visit> {
    const { offer, tools } = this;
    const failure = failureOf(error);
    await tools.assignments.giveUpOthers(null).catch((fault: unknown) => {
      if (!isError(fault, "unavailable")) throw fault; // a full disk: the next check-in makes up for it
    });
    const about = { offer, choice: this.choice, code: failure.code, error };
    let receipt: Receipt;
    try {
      receipt = await tools.service.fail(offer, failure);
    } catch (fault) {
      if (!(fault instanceof HetloraError)) throw fault; // the lease will end what could not be given back
      return { ...about, outcome: "failed", reason: String(error), retryAfterSeconds: DEFAULT_RETRY_SECONDS };
    }
    // The service may have ended the assignment before.
    if (receipt.state !== "failed") return { ...about, ...told(receipt) };
    tools.onEvent({ kind: "given_back", code: failure.code, message: failure.message });
    return { ...about, ...told(receipt), reason: failure.message };
  }

  private async checkStart(): Promise<void> {
    this.check();
    if ((await this.tools.trainer.exampleCount()) > 0) return;
    throw new HetloraError("no_examples", "this device has nothing to train on", { expected: "examples" });
  }

  /** Throws `stopped` where the page asked for the end, `conditions_unmet` where the device may not work now. */
  private check(): void {
    this.checkStop();
    const reason = this.tools.watch.unmet(this.offer.conditions);
    if (reason !== null) throw new HetloraError("conditions_unmet", "this device may not work now", { got: reason });
  }

  private checkStop(): void {
    if (this.tools.watch.isStopped()) throw new HetloraError("stopped", "this visit was asked to end");
  }
}

function told(receipt: Receipt): Pick<Visit, "outcome" | "reason" | "retryAfterSeconds"> {
  return { outcome: outcomeOf(receipt), reason: receipt.reason, retryAfterSeconds: receipt.retry_after_seconds };
}
