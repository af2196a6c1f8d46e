import type { TrainingSettings } from "../messages/training";

type Schedule = Pick<TrainingSettings, "learning_rate" | "schedule" | "steps" | "warm_up_steps">;

/**
 * The learning rate of the `number`-th step of a round, counted from 1.
 *
 * It rises by equal parts over `warm_up_steps` and is whole in the one after them. A falling schedule begins there,
 * and would be at 0 in the step after the last: no step is taken in vain.
 */
export function learningRateAt(settings: Schedule, number: number): number {
  const before = settings.warm_up_steps;
  if (number <= before) return (settings.learning_rate * number) / (before + 1);
  const done = (number - 1 - before) / (settings.steps - before);
  const factors = { constant: 1, linear: 1 - done, cosine: (1 + Math.cos(Math.PI * done)) / 2 };
  return settings.learning_rate * Math.max(factors[settings.schedule], 0);
}
