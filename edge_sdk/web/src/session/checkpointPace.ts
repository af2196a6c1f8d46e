// After which steps a checkpoint is due: each is paid for before it is made.

/** What checkpoints may take of the time that training takes. */
const TIME_SHARE = 0.01;
/** Flash wears out. */
const BYTES_PER_SECOND = 4 * 2 ** 20;
/** Before the first one is measured. */
const FIRST_BYTES_PER_SECOND = 60e6;
const FLUSH_SECONDS = 0.003;

export class CheckpointPace {
  private expectedSeconds: number;
  private leastSeconds: number;
  private last: number;

  /** `timer` tells seconds, for differences; `stateBytes` is what a checkpoint is expected to take. */
  constructor(
    stateBytes: number,
    private readonly timer: () => number,
  ) {
    this.expectedSeconds = FLUSH_SECONDS + stateBytes / FIRST_BYTES_PER_SECOND;
    this.leastSeconds = stateBytes / BYTES_PER_SECOND;
    this.last = timer();
  }

  /** Whether enough was trained since the last one. */
  isDue(): boolean {
    return this.timer() - this.last >= Math.max(this.expectedSeconds / TIME_SHARE, this.leastSeconds);
  }

  /** Makes one, and notes what it took; one that fails is tried again when the next would be due. */
  async make(checkpoint: () => Promise<number>): Promise<void> {
    const started = this.timer();
    try {
      this.leastSeconds = (await checkpoint()) / BYTES_PER_SECOND;
    } finally {
      this.last = this.timer();
      this.expectedSeconds = this.last - started;
    }
  }
}
