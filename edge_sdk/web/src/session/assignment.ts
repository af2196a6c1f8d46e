// What training and evaluating share: an offer is taken at a rank and carried to its end, or given back.
import { storedIfRoom } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import type { Offer, Receipt } from "../messages/device";
import type { Manifest } from "../messages/manifest";
import type { RankChoice } from "../planning/planner";
import type { Adapter } from "../tensors/adapter";
import { chooseBundle, examplesFor } from "./choosing";
import type { Equipment } from "./equipment";
import { checkPlan, fetchReceived, readReceived } from "./plans";
import type { Terms } from "./terms";
import { takenOf, type Taken } from "./updates";
import { DEFAULT_RETRY_SECONDS, failureOf, outcomeOf, type Visit } from "./visit";

/** An offer that was taken, and the bytes of the adapter that its plan sent. */
export interface Agreed {
  terms: Terms;
  manifest: Manifest;
  bytes: Uint8Array;
}

/** An offer that is worked on; used once. */
export abstract class Assignment {
  protected choice: RankChoice | null = null;
  private readonly cameAt: number;
  private readonly receivedBefore: number;

  constructor(
    protected readonly offer: Offer,
    protected readonly tools: Equipment,
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

  /** The whole of the assignment. */
  protected abstract work(): Promise<Visit>;

  /** Of the time that the offer gives, which began when it came. */
  protected get secondsLeft(): number {
    return Math.max(0, this.offer.round_seconds - (this.tools.timer() - this.cameAt));
  }

  /** Chooses bundle and rank, takes the offer at it, and fetches bundle and adapter. */
  protected async agree(): Promise<Agreed> {
    const { offer, tools } = this;
    await this.checkStart();
    const { bundle, manifest, choice, concessions } = await chooseBundle(offer, tools);
    this.choice = choice;
    tools.onEvent({ kind: "rank_chosen", choice, concessions, offer });
    const files = tools.trainers.filesOf(manifest);
    await tools.trainers.prepare();
    const variant = bundle === offer.bundle ? null : bundle.sha256;
    const plan = await tools.service.start(offer, { rank: choice.rank, variant });
    const training = { ...offer.training, max_tokens: choice.maxTokens };
    checkPlan(plan);
    await tools.bundles.fetch(manifest, files);
    const bytes = await fetchReceived(plan, manifest.adapter, tools.downloads);
    await this.dropOtherBundles();
    const terms: Terms = {
      plan,
      bundle,
      rank: choice.rank,
      training,
      micro_batch: choice.step.microBatch,
      example_count: await examplesFor(offer, tools.trainers),
      downloaded_bytes: tools.downloads.receivedBytes - this.receivedBefore,
    };
    return { terms, manifest, bytes };
  }

  /** Bundles of runs that are over do not stay: all but those of this offer, and of the adapters that are kept. */
  protected async dropOtherBundles(): Promise<void> {
    const { offer, tools } = this;
    await storedIfRoom(() => tools.bundles.dropOtherBundles([offer.bundle, ...offer.variants]));
  }

  protected async taken({ terms, manifest, bytes }: Agreed): Promise<Taken> {
    return takenOf(this.offer, terms, manifest, this.received(terms, manifest, bytes), this.tools);
  }

  /** What came, of at most the numbers of the rank that this device has planned for. */
  protected received(terms: Terms, manifest: Manifest, bytes: Uint8Array): Adapter {
    return readReceived(bytes, manifest.adapter, this.offer.trained_rank ?? terms.rank);
  }

  /** What is asked of the trainer: the model as it was agreed to, under the adapter that the work begins with. */
  protected opening({ terms, manifest, begun }: Taken) {
    return {
      manifest,
      file: (path: string) => this.tools.bundles.file(manifest, path),
      adapter: begun,
      training: terms.training,
      adaptation: terms.plan.adaptation,
      microBatchRows: terms.micro_batch,
      seed: terms.plan.seed,
    };
  }

  protected async checkStart(): Promise<void> {
    this.check();
    if ((await examplesFor(this.offer, this.tools.trainers)) > 0) return;
    throw new HetloraError("no_examples", "this device has nothing to work on", { expected: "examples" });
  }

  /** Throws `stopped` where the page asked for the end, `conditions_unmet` where the device may not work now. */
  protected check(): void {
    this.checkStop();
    const reason = this.tools.conditions.unmet(this.offer.conditions);
    if (reason !== null) throw new HetloraError("conditions_unmet", "this device may not work now", { got: reason });
  }

  protected checkStop(): void {
    if (this.tools.isStopped()) throw new HetloraError("stopped", "this visit was asked to end");
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
}

export function told(receipt: Receipt): Pick<Visit, "outcome" | "reason" | "retryAfterSeconds"> {
  return { outcome: outcomeOf(receipt), reason: receipt.reason, retryAfterSeconds: receipt.retry_after_seconds };
}
