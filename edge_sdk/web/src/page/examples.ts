// The user's examples: lines of label and text, kept in the browser and nowhere else.
import type { Example } from "../batching/collation";
import type { Database } from "../database/database";
import { HetloraError } from "../errors/errors";
import { parted, type Parted } from "./holdOut";

const KEY = "page/examples";
const HOLD_OUT_KEY = "page/hold_out_key";
const MOST_EXAMPLES = 10_000;
/** Ten thousand texts of 1,600 letters. More of them holds the page up for seconds, at each start. */
const MOST_CHARACTERS = 16_000_000;

/** Throws `data_unreadable` where examples are longer, in characters or bytes, than the page reads. */
export function checkSize(size: number): void {
  if (size <= MOST_CHARACTERS) return;
  throw new HetloraError("data_unreadable", "the examples are too long", { got: size, expected: `up to ${MOST_CHARACTERS}` });
}

/** Reads lines of a label, a tab and a text; a line without a tab is a text alone. Throws `data_unreadable`. */
export function parsedExamples(lines: string): Example[] {
  checkSize(lines.length);
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
    const key = (await this.database.read(HOLD_OUT_KEY)) ?? crypto.getRandomValues(new Uint32Array(1))[0];
    await this.database.write(new Map<string, unknown>([[KEY, examples], [HOLD_OUT_KEY, key]]));
  }

  /** Those to train on. */
  async trained(): Promise<Example[]> {
    return (await this.parted()).trained;
  }

  /** Those to score. */
  async heldOut(): Promise<Example[]> {
    return (await this.parted()).heldOut;
  }

  private async parted(): Promise<Parted> {
    const key = await this.database.read(HOLD_OUT_KEY);
    return parted(await this.all(), typeof key === "number" ? key : 0);
  }
}
