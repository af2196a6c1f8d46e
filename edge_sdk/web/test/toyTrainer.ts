import { joined } from "../src/bytes";
import { HetloraError } from "../src/errors/errors";
import type { Manifest } from "../src/messages/manifest";
import type { BatchScore, LocalScorer, ScoredBatches } from "../src/session/evaluation";
import type { LocalTrainers, Opening, LocalTrainer } from "../src/session/localTrainers";
import { adapterFromBytes, adapterToBytes, makeAdapter, type Adapter } from "../src/tensors/adapter";
import { floats } from "../src/tensors/tensor";

/** A trainer without a model: each step moves lora_B by numbers that anybody can reckon. */
export class ToyTrainer implements LocalTrainers {
  /** Called within each step, before it counts. */
  onStep: () => void = () => undefined;
  /** Called within each batch of what is held out that is scored in a training. */
  onScore: () => void = () => undefined;
  examples = 12;

  exampleCount = async () => this.examples;
  heldOut = 0;
  heldOutCount = async () => this.heldOut;
  prepare = async () => undefined;
  filesOf = (manifest: Manifest) => [manifest.graphs.base_weights];
  check = () => undefined;

  async open(opening: Opening): Promise<LocalTrainer> {
    await opening.file(opening.manifest.graphs.base_weights);
    return new ToyTraining(opening.adapter, this);
  }

  async openScorer(_opening: Opening): Promise<LocalScorer> {
    return toyScoring([1, 2, 3]);
  }
}

/** A model whose batches have one example each, with these losses; the second is right. */
export const toyScoring = (losses: readonly number[]): LocalScorer => ({
  batches: losses.length,
  batch: async (at) => ({ examples: 1, loss: losses[at]!, weight: 1, right: at === 1 ? 1 : 0 }),
  close: async () => undefined,
});

class ToyTraining implements LocalTrainer {
  stepsDone = 0;
  readonly heldOut: ScoredBatches | null;

  constructor(
    private own: Adapter,
    private readonly trainer: ToyTrainer,
  ) {
    const batches = trainer.heldOut;
    this.heldOut = batches ? { batches, batch: (at) => this.scored(at) } : null;
  }

  async step(): Promise<number> {
    this.trainer.onStep();
    this.stepsDone++;
    const factors = [...this.own.factors].map(([name, { lora_A, lora_B }]) => {
      const moved = lora_B.data.map((value, at) => value + this.stepsDone * ((at % 5) + 1) * 2 ** -10);
      return [name, { lora_A, lora_B: floats(lora_B.shape, moved) }] as const;
    });
    this.own = makeAdapter(this.own.spec, new Map(factors));
    return 1 / this.stepsDone;
  }

  /** One example each, the first of which is right, with losses 1, 2, 3, ... over one more than the steps so far. */
  private async scored(at: number): Promise<BatchScore> {
    this.trainer.onScore();
    return { examples: 1, loss: (at + 1) / (this.stepsDone + 1), weight: 1, right: at === 0 ? 1 : 0 };
  }

  async checkpoint(): Promise<Uint8Array> {
    return joined([Uint8Array.of(this.stepsDone), adapterToBytes(this.own)]);
  }

  async restore(state: Uint8Array): Promise<void> {
    if (state.length < 9) throw new HetloraError("spec_mismatch", "a checkpoint of another training");
    this.own = adapterFromBytes(state.subarray(1), this.own.spec);
    this.stepsDone = state[0]!;
  }

  adapter = async () => this.own;
  close = async () => undefined;
}
