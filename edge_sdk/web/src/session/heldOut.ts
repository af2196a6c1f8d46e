// How a training did on what is held out: scored before the first step, after the last, and on the way if that is cheap.
import type { ErrorCode } from "../errors/codes";
import { isError } from "../errors/errors";
import type { EvaluationReport } from "../messages/device";
import type { TrainingSettings } from "../messages/training";
import { evaluateLocally, type ScoredBatches } from "./evaluation";
import type { FirstScore } from "./terms";

/** Of a round's time, what one of its two scorings may take; of the time of its steps, what all scoring may on the way. */
const SCORING_SHARE = 0.1;
/** So many of the run's batches are enough to tell a trend, and so many examples to show one. */
const MOST_BATCHES = 16;
const MOST_SHOWN = 64;
/** The curve has so many points on the way, at most. */
const MOST_ON_THE_WAY = 10;

export interface ScoringTerms {
  training: TrainingSettings;
  /** What training is expected to take; 0 where that is unknown. */
  plannedSeconds: number;
  /** Of the round. */
  secondsLeft: () => number;
  timer: () => number;
  /** Called before each batch; what it throws ends the round, but after the last step `stopped` alone does. */
  mayGoOn: () => void;
  onScore: (step: number, report: EvaluationReport) => void;
}

/** Steps that were taken in this page, and their seconds. */
export interface StepsHere {
  count: number;
  seconds: number;
}

/**
 * Scores of one model on the same examples. The run is told two of them, if it asks; the page shows all. No round
 * fails for want of a score: what cannot be scored is left out.
 */
export class HeldOutScores {
  /** Before the first step, for the page that goes on with this round. */
  first: FirstScore | null = null;
  /** What scoring has taken since the first step. */
  secondsOnTheWay = 0;
  private last: EvaluationReport | null = null;

  constructor(
    private readonly model: ScoredBatches | null,
    private readonly terms: ScoringTerms,
  ) {}

  /** Of the time of the round, what the last score will take. */
  get secondsToKeep(): number {
    return this.model && this.first ? this.first.seconds : 0;
  }

  /** Scores the model as the round begins with it, unless that is known from a page before. */
  async before(known: FirstScore | null): Promise<void> {
    if (known) this.first = known;
    const { training, plannedSeconds, timer } = this.terms;
    const left = this.terms.secondsLeft();
    // What nobody but the page asks for costs no step that was planned.
    const shown = training.evaluate ? Infinity : (left - plannedSeconds) / 2;
    const maxSeconds = Math.min(SCORING_SHARE * left, shown);
    if (this.first || maxSeconds <= 0) return;
    const mostExamples = training.evaluate ? MOST_BATCHES * training.batch_size : MOST_SHOWN;
    const started = timer();
    const report = await this.score(0, maxSeconds, mostExamples, "conditions_unmet");
    if (report) this.first = { report, seconds: timer() - started };
  }

  /** Scores it on the way, where that takes little of the time of the steps so far, and no step to come its time. */
  async between(step: number, here: StepsHere): Promise<void> {
    const { training: { steps }, secondsLeft, timer } = this.terms;
    if (!this.first || step >= steps || step % Math.ceil(steps / MOST_ON_THE_WAY) !== 0) return;
    const { seconds, report } = this.first;
    const isCheap = this.secondsOnTheWay + 2 * seconds <= SCORING_SHARE * here.seconds;
    const spared = secondsLeft() - seconds - ((steps - step) * here.seconds) / here.count;
    if (!isCheap || spared < seconds) return;
    const started = timer();
    await this.score(step, spared, report.example_count, "conditions_unmet");
    this.secondsOnTheWay += timer() - started;
  }

  /** Scores it once more where it was scored before, unless the round is over first. */
  async after(step: number): Promise<void> {
    if (!this.first) return;
    this.last = await this.score(step, this.terms.secondsLeft(), this.first.report.example_count, "stopped");
  }

  /** Both losses, where the run asks for them. */
  told(): { before: number; after: number } | null {
    if (!this.terms.training.evaluate || !this.first || !this.last) return null;
    return { before: this.first.report.loss, after: this.last.loss };
  }

  /** Scores once and tells; null where that does not come off, or would compare other examples than the first ones. */
  private async score(
    step: number, maxSeconds: number, mostExamples: number, ends: ErrorCode,
  ): Promise<EvaluationReport | null> {
    if (!this.model) return null;
    const { timer, mayGoOn, onScore } = this.terms;
    let report: EvaluationReport;
    try {
      report = await evaluateLocally(this.model, { maxSeconds, mostExamples, timer, mayGoOn });
    } catch (error) {
      if (isError(error, ends)) throw error;
      return null;
    }
    if (this.first && this.first.report.example_count !== report.example_count) return null;
    onScore(step, report);
    return report;
  }
}
