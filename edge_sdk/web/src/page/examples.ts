// The user's examples: lines of label and text, kept in the browser and nowhere else.
import type { Example } from "../batching/collation";
import type { Database } from "../database/database";
import { HetloraError } from "../errors/errors";

const KEY = "page/examples";
const MOST_EXAMPLES = 10_000;
/** With so many every fifth is held out, never trained on, and scored before and after. */
const LEAST_TO_HOLD_OUT = 10;
const HELD_OUT_EVERY = 5;

/** Reads lines of a label, a tab and a text; a line without a tab is a text alone. Throws `data_unreadable`. */
export function parsedExamples(lines: string): Example[] {
  const rows = lines.split(/\r?\n/).filter((line) => line.trim());
  if (rows.length > MOST_EXAMPLES) {
    throw new HetloraError("data_unreadable", "too many examples", { got: rows.length, expected: `up to ${MOST_EXAMPLES}` });
  }
  return rows.map((row, at) => {
    const tab = row.indexOf("\t");
    const example = tab < 0 ? { text: row.trim(), label: null } : { label: row.slice(0, tab).trim(), text: row.slice(tab + 1).trim() };
    if (!example.text || example.label === "") {
      throw new HetloraError("data_unreadable", `line ${at + 1} of the examples`, { expected: "a label, a tab and a text" });
    }
    return example;
  });
}

/** Examples as the lines that `parsedExamples` reads. */
export function linesOf(examples: readonly Example[]): string {
  return examples.map(({ label, text }) => (label === null ? text : `${label}\t${text}`)).join("\n");
}

/** The examples of this browser. */
export class Examples {
  constructor(private readonly database: Database) {}

  async all(): Promise<Example[]> {
    return ((await this.database.read(KEY)) as Example[] | undefined) ?? [];
  }

  async keep(examples: readonly Example[]): Promise<void> {
    await this.database.write(new Map([[KEY, examples]]));
  }

  /** Those to train on. */
  async trained(): Promise<Example[]> {
    const all = await this.all();
    return all.filter((_, at) => !isHeldOut(at, all.length));
  }

  /** Those to score. */
  async heldOut(): Promise<Example[]> {
    const all = await this.all();
    return all.filter((_, at) => isHeldOut(at, all.length));
  }
}

function isHeldOut(at: number, count: number): boolean {
  return count >= LEAST_TO_HOLD_OUT && at % HELD_OUT_EVERY === HELD_OUT_EVERY - 1;
}
