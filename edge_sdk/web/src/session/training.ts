// Local training: steps until they are done or the time is up, with checkpoints on the way.
import { storedIfRoom } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import type { Adapter } from "../tensors/adapter";
import { adapterBytes } from "../tensors/adapter";
import type { AssignmentStore, Checkpoint } from "./assignmentStore";
import { CheckpointPace } from "./checkpointPace";
import type { HeldOutScores } from "./heldOut";
import type { LocalTrainer } from "./localTrainers";
import type { Trained } from "./terms";

/** A checkpoint holds the adapter, AdamW's two moments, and little else. */
const COPIES_IN_CHECKPOINT = 3;
/** So many starts in a row may end with their page and leave no checkpoint. */
const MOST_STARTS = 3;

export interface TrainingResult {
  adapter: Adapter;
  steps: number;
  firstLoss: number;
  lastLoss: number;
  seconds: number;
  /** Losses of what is held out, where the run asks for them. */
  heldOut: { before: number; after: number } | null;
}

export interface TrainingLimits {
  steps: number;
  /** No further step is taken once no more are left than the last score takes. */
  secondsLeft: () => number;
  timer: () => number;
  /** Called after each step, and before the next; what it throws ends the training. */
  onStep: (step: number, loss: number) => void;
  onResumed: (step: number) => void;
}

/** Counts a start of training, in case its page ends before the training does. Throws `no_progress`. */
export async function countedStart<T>(store: AssignmentStore, work: () => Promise<T>): Promise<T> {
  const starts = await store.starts();
  if (starts >= MOST_STARTS) {
    throw new HetloraError("no_progress", "the page ended again and again in this training", {
      got: `${starts} starts without a checkpoint`,
      expected: `one after ${MOST_STARTS} at the latest`,
    });
  }
  const isCounted = await storedIfRoom(() => store.countStart(1));
  try {
    return await work();
  } finally {
    if (isCounted) await storedIfRoom(() => store.countStart(-1));
  }
}

/** One training of an assignment, from its last checkpoint on. */
export class TrainingLoop {
  private trained: Trained | null = null;
  private readonly pace: CheckpointPace;
  private started = 0;

  constructor(
    private readonly trainer: LocalTrainer,
    private readonly store: AssignmentStore,
    private readonly limits: TrainingLimits,
    private readonly scores: HeldOutScores,
    adapter: Adapter,
  ) {
    this.pace = new CheckpointPace(COPIES_IN_CHECKPOINT * adapterBytes(adapter), limits.timer);
  }

  /** Takes the steps, at least one. A training that is stopped keeps a checkpoint, and throws `stopped`. */
  async run(): Promise<TrainingResult> {
    const checkpoint = await this.store.checkpoint();
    // Before a checkpoint is taken up: what is scored is the model as the round began with it.
    await this.scores.before(checkpoint?.trained.first_score ?? null);
    const secondsBefore = await this.resume(checkpoint);
    this.started = this.limits.timer();
    // A start before this one may have ended with its page: checkpoints come sooner then.
    const isAgain = (await this.store.starts()) > 1;
    try {
      await this.steps(secondsBefore, isAgain);
      await this.scores.after(this.trained!.steps);
    } catch (error) {
      if (isError(error, "stopped")) await this.keep();
      throw error;
    }
    const { steps, seconds, first_loss, last_loss } = this.trained!;
    return {
      adapter: await this.trainer.adapter(),
      steps,
      firstLoss: first_loss,
      lastLoss: last_loss ?? first_loss,
      seconds,
      heldOut: this.scores.told(),
    };
  }

  private async steps(secondsBefore: number, isAgain: boolean): Promise<void> {
    const begun = this.trainer.stepsDone;
    while (this.trainer.stepsDone < this.limits.steps) {
      const loss = await this.trainer.step();
      if (!Number.isFinite(loss)) {
        throw new HetloraError("training_diverged", `loss of step ${this.trainer.stepsDone}`, {
          got: loss,
          expected: "a finite number",
        });
      }
      const steps = this.trainer.stepsDone;
      const seconds = this.secondsHere();
      this.trained = {
        steps, seconds: secondsBefore + seconds, first_loss: this.trained?.first_loss ?? loss, last_loss: loss,
        first_score: this.scores.first,
      };
      const isSooner = isAgain && Number.isInteger(Math.log2(steps - begun));
      if (steps < this.limits.steps && (isSooner || this.pace.isDue())) await this.keep();
      this.limits.onStep(steps, loss);
      if (this.limits.secondsLeft() <= this.scores.secondsToKeep) return;
      await this.scores.between(steps, { count: steps - begun, seconds });
    }
  }

  /** Brings the training to its last checkpoint, and answers the seconds until then. */
  private async resume(checkpoint: Checkpoint | null): Promise<number> {
    if (!checkpoint) return 0;
    try {
      await this.trainer.restore(checkpoint.state);
    } catch (error) {
      // Of another adapter, or no longer what was written: it begins at the beginning.
      if (!isError(error, "invalid_input")) throw error;
      return 0;
    }
    this.trained = checkpoint.trained;
    this.limits.onResumed(checkpoint.trained.steps);
    return checkpoint.trained.seconds;
  }

  /** Keeps a checkpoint; in a full database the one before stays. */
  private async keep(): Promise<void> {
    const trained = this.trained;
    if (!trained) return;
    const make = async () => {
      const state = await this.trainer.checkpoint();
      await this.store.checkpointed(trained, state);
      return state.length;
    };
    await storedIfRoom(() => this.pace.make(make));
  }

  /** Of steps and checkpoints, without scores. */
  private secondsHere(): number {
    return this.limits.timer() - this.started - this.scores.secondsOnTheWay;
  }
}
