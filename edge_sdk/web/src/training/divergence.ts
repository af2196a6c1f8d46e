// Training that leads nowhere is given up before its time and battery are spent.
import { HetloraError } from "../errors/errors";
import type { TrainingSettings } from "../messages/training";

/**
 * Looks at the loss of each step; `highSteps` is how many were high running.
 *
 * A loss is high above `divergence_factor` times the first. A first loss of 0, of a batch that taught nothing, is no
 * measure: then none is.
 */
export class Divergence {
  highSteps = 0;

  constructor(
    private readonly settings: Pick<TrainingSettings, "divergence_factor" | "divergence_steps" | "steps">,
  ) {}

  /** Looks at the loss of the `number`-th step of a round. Throws `training_diverged`. */
  check(loss: number, firstLoss: number, number: number): void {
    const { divergence_factor: factor, divergence_steps: most, steps } = this.settings;
    if (!Number.isFinite(loss)) {
      throw new HetloraError("training_diverged", `loss of step ${number} of ${steps}`, {
        got: loss,
        expected: "a finite number",
      });
    }
    if (factor === null || firstLoss <= 0) return;
    this.highSteps = loss > factor * firstLoss ? this.highSteps + 1 : 0;
    if (this.highSteps >= most) {
      throw new HetloraError("training_diverged", `loss of ${most} steps running, up to step ${number} of ${steps}`, {
        got: loss,
        expected: `up to ${factor * firstLoss}, ${factor} times the first`,
      });
    }
  }
}
