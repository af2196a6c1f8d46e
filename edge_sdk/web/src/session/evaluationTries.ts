// Evaluations that ended with their page, which are left alone for a while.
import { storedIfRoom, type Database } from "../database/database";
import { HetloraError } from "../errors/errors";

const BEGUN = "evaluation/begun";
const LEFT_ALONE_SECONDS = 3600;

/** What is known of evaluations that ended with their page. */
export class EvaluationTries {
  constructor(
    private readonly database: Database,
    /** Unix seconds. */
    private readonly clock: () => number,
  ) {}

  /** Throws `device_too_small` where one did within the last hour. */
  async check(): Promise<void> {
    const begun = await this.database.read(BEGUN);
    const passed = typeof begun === "number" ? this.clock() - begun : Infinity;
    if (passed < 0 || passed >= LEFT_ALONE_SECONDS) return;
    throw new HetloraError("device_too_small", "the page ended in an evaluation within the last hour", {
      got: `${Math.floor(passed)} s ago`, expected: `${LEFT_ALONE_SECONDS} s`,
    });
  }

  /** Does it, and notes that it is under way until it has ended in any way but with its page. A full database notes none. */
  async trying<T>(work: () => Promise<T>): Promise<T> {
    await this.note(this.clock());
    try {
      return await work();
    } finally {
      await this.note(undefined);
    }
  }

  private async note(begun: number | undefined): Promise<void> {
    await storedIfRoom(() => this.database.write(new Map([[BEGUN, begun]])));
  }
}
