// One adapter being trained: the runtime gives gradients, and every step is taken here.
import { HetloraError } from "../errors/errors";
import { trainedModules, type Manifest } from "../messages/manifest";
import type { TrainingSettings } from "../messages/training";
import type { Batch, Evaluation, Factors, Tensor, TrainingRuntime } from "../runtimes/base";
import { factorKeys } from "../tensors/adapter";
import { Divergence } from "./divergence";
import { FlatTensors } from "./flatTensors";
import { addProximal, clipNorm } from "./gradientTerms";
import { microBatches } from "./microBatches";
import { optimizerFor, type Optimizer } from "./optimizers";
import { addTailPenalty, type PenalisedModule } from "./penalty";
import { learningRateAt } from "./schedule";
import { TrainedNumbers, type Parametrisation } from "./trainedNumbers";

/** Where a training is, beside its tensors. */
export interface Progress {
  stepsDone: number;
  highSteps: number;
  firstLoss: number;
  lastLoss: number;
}

/** An adapter, by PEFT key, stepped by the optimizer of its run. */
export class Trainer {
  stepsDone = 0;
  firstLoss = NaN;
  lastLoss = NaN;
  private readonly numbers: TrainedNumbers;
  private readonly gradients: FlatTensors;
  private readonly begun: Float32Array | null;
  private readonly optimizer: Optimizer;
  private readonly divergence: Divergence;
  private readonly mostRows: number | null;

  constructor(
    private readonly runtime: TrainingRuntime,
    private readonly manifest: Manifest,
    factors: Factors,
    private readonly settings: TrainingSettings,
    how: Parametrisation,
    microBatchRows: number | null,
  ) {
    this.numbers = new TrainedNumbers(factors, how);
    this.gradients = new FlatTensors(this.numbers.flat.shapes);
    this.begun = settings.proximal ? this.numbers.flat.numbers.slice() : null;
    this.optimizer = optimizerFor(settings, manifest.optimizer, this.numbers.flat.shapes);
    this.divergence = new Divergence(settings);
    this.mostRows = runtime.mostRows ?? microBatchRows;
  }

  /** Takes one step over the whole of a batch and answers the loss before it, with all penalties. */
  async step(batch: Batch): Promise<number> {
    const { flat } = this.numbers;
    const loss = (await this.differentiate(batch)) + this.punish() + this.hold();
    if (this.stepsDone === 0) this.firstLoss = loss;
    this.divergence.check(loss, this.firstLoss, this.stepsDone + 1);
    this.clip();
    this.stepsDone += 1;
    this.lastLoss = loss;
    const rates = this.numbers.rates(learningRateAt(this.settings, this.stepsDone));
    this.optimizer.step(flat.numbers, this.gradients.numbers, rates, this.stepsDone);
    return loss;
  }

  /** Scores a batch with the adapter as it stands; the loss leaves the penalties out. */
  evaluate(batch: Batch): Promise<Evaluation> {
    return this.runtime.evaluate(batch, this.numbers.fed());
  }

  /** A copy of the factors as they stand. */
  factors(): Map<string, Tensor> {
    return new Map([...this.numbers.whole].map(([key, own]) => [key, { shape: own.shape, data: own.data.slice() }]));
  }

  /** All that `restore` needs to go on: tensors where they lie, good until the next step, and where it is. */
  state(): { tensors: Map<string, Tensor>; progress: Progress } {
    const { stepsDone, firstLoss, lastLoss } = this;
    const kinds: [string, FlatTensors][] = [["trained", this.numbers.flat], ...this.optimizer.moments];
    const tensors = kinds.flatMap(([kind, flat]) =>
      [...flat.tensors].map(([key, own]): [string, Tensor] => [`${kind}/${key}`, own]),
    );
    const progress = { stepsDone, firstLoss, lastLoss, highSteps: this.divergence.highSteps };
    return { tensors: new Map(tensors), progress };
  }

  /** Goes on from what `state` gave, of this adapter and of no other. Throws `spec_mismatch`; nothing is changed then. */
  restore(tensors: Factors, progress: Progress): void {
    const own = this.state().tensors;
    const isCount = (number: number) => Number.isSafeInteger(number) && number >= 0;
    const fits = [...own].every(([key, place]) => String(tensors.get(key)?.shape) === String(place.shape));
    if (tensors.size !== own.size || !fits || !isCount(progress.stepsDone) || !isCount(progress.highSteps)) {
      throw new HetloraError("spec_mismatch", "what training is to go on from is of another adapter", {
        got: [...tensors.keys()].slice(0, 3),
        expected: [...own.keys()].slice(0, 3),
      });
    }
    for (const [key, place] of own) place.data.set((tensors.get(key) as Tensor).data);
    ({ stepsDone: this.stepsDone, firstLoss: this.firstLoss, lastLoss: this.lastLoss } = progress);
    this.divergence.highSteps = progress.highSteps;
  }

  /** The loss of a batch without penalties; its gradients are then in `gradients`. */
  private async differentiate(batch: Batch): Promise<number> {
    const factors = this.numbers.fed();
    let loss = 0;
    this.gradients.numbers.fill(0);
    for (const [part, share] of microBatches(batch, this.mostRows, this.manifest.task === "text-generation")) {
      const told = await this.runtime.gradients(part, factors);
      loss += share * told.loss;
      for (const [key, own] of this.numbers.pulledBack(told.gradients)) {
        const sums = (this.gradients.tensors.get(key) as Tensor).data;
        const weight = Math.fround(share);
        own.data.forEach((number, at) => (sums[at] = (sums[at] as number) + Math.fround(weight * number)));
      }
    }
    return loss;
  }

  private punish(): number {
    const { pruning_penalty: weight, pruning_decay: decay } = this.settings;
    return weight ? addTailPenalty(trainedModules(this.manifest).map((name) => this.penalised(name)), decay, weight) : 0;
  }

  private penalised(name: string): PenalisedModule {
    const [keyA, keyB] = factorKeys(name);
    const { whole } = this.numbers;
    return {
      loraA: whole.get(keyA) as Tensor,
      loraB: whole.get(keyB) as Tensor,
      gradientA: this.gradients.tensors.get(keyA),
      gradientB: this.gradients.tensors.get(keyB),
    };
  }

  private hold(): number {
    if (this.begun === null) return 0;
    return addProximal(this.gradients.numbers, this.numbers.flat.numbers, this.begun, this.settings.proximal);
  }

  private clip(): void {
    if (this.settings.max_gradient_norm === null) return;
    const norm = clipNorm(this.gradients.numbers, this.settings.max_gradient_norm);
    if (!Number.isFinite(norm)) {
      throw new HetloraError("training_diverged", "norm of the gradients", { got: norm, expected: "a finite number" });
    }
  }
}
