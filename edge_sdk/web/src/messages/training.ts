// How a device takes its steps, as the run asks for it.
import { bool, checked, defaulted, integer, nullable, object, oneOf, real, refuse, silent, type Of } from "./schema";

const MOST_TOKENS = 8192;
const steps = (least: number) => integer({ least, most: 100_000 });
const tokens = integer({ least: 1, most: MOST_TOKENS });

/** Settings of a run's training; those of step options are left out at their defaults. */
export const trainingSettings = checked(
  object({
    optimizer: silent(oneOf("adamw", "sgd"), "adamw"),
    momentum: silent(real({ least: 0, below: 1 }), 0),
    schedule: silent(oneOf("constant", "linear", "cosine"), "constant"),
    warm_up_steps: silent(steps(0), 0),
    max_gradient_norm: silent(nullable(real({ above: 0, most: 1e9 })), null),
    proximal: silent(real({ least: 0, most: 1e6 }), 0),
    divergence_factor: silent(nullable(real({ above: 1, most: 1e6 })), null),
    divergence_steps: silent(steps(1), 3),
    steps: defaulted(steps(1), 10),
    batch_size: defaulted(integer({ least: 1, most: 4096 }), 16),
    learning_rate: defaulted(real({ above: 0, most: 10 }), 1e-3),
    max_tokens: defaulted(tokens, 64),
    min_tokens: silent(nullable(tokens), null),
    pruning_decay: defaulted(real({ above: 0, most: 1 }), 0.99),
    pruning_penalty: defaulted(real({ least: 0 }), 1e-3),
    prune_by: defaulted(oneOf("model", "module"), "model"),
    upload_precision: silent(oneOf("float32", "float16", "int8"), "float32"),
    evaluate: silent(bool, false),
  }),
  (told, place) => {
    if (told.momentum !== 0 && told.optimizer !== "sgd") refuse(place, "momentum", "only with sgd");
    if (told.divergence_factor === null && told.divergence_steps !== 3) {
      refuse(place, "divergence_steps", "only with divergence_factor");
    }
    if (told.warm_up_steps >= told.steps) refuse(place, "warm_up_steps", "fewer than steps");
  },
);
export type TrainingSettings = Of<typeof trainingSettings>;
