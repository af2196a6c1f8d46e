// Text to token numbers with the tokenizer of a bundle, the same as edge_sdk/batching/tokens.py makes.
import { Tokenizer } from "@huggingface/tokenizers";
import { HetloraError } from "../errors/errors";
import { fixedSizes, type FixedSizes, type Manifest } from "../messages/manifest";
import type { Input } from "../runtimes/base";

const INPUTS = ["input_ids", "attention_mask", "token_type_ids"] as const;
// The padding token of a tokenizer that names none; what stands there is masked.
const PADDING_TOKENS = ["[PAD]", "<pad>", "<|endoftext|>", "</s>"];
// Stands for a text where the special tokens around it are looked for; no token of any tokenizer.
const ANY_TEXT = "\u0000hetlora\u0000";

/** The special tokens around a text, and the types of its own and of theirs. */
interface Frame {
  before: number[];
  after: number[];
  typesBefore: number[];
  typesAfter: number[];
  ownType: number;
}

/** Texts to the inputs that the graphs of one bundle take, always padded on the right. */
export class TextEncoder {
  private readonly tokenizer: Tokenizer;
  private readonly frame: Frame;
  private readonly padId: number;
  private readonly padType: number;
  private readonly unknownId: number | undefined;
  readonly maxTokens: number;
  readonly sizes: FixedSizes;
  private readonly names: string[];
  private readonly endIds: readonly number[];

  /** Throws `bundle_invalid` where the tokenizer cannot be read, or an input is none that text can fill. */
  constructor(tokenizerFile: Uint8Array, manifest: Manifest, maxTokens: number) {
    this.sizes = fixedSizes(manifest);
    this.maxTokens = Math.min(maxTokens, this.sizes.tokens ?? manifest.max_tokens);
    this.names = manifest.inputs.map((input) => input.name);
    const strange = this.names.filter((name) => !(INPUTS as readonly string[]).includes(name));
    if (strange.length) {
      throw new HetloraError("bundle_invalid", "inputs that text cannot fill", { got: strange, expected: INPUTS });
    }
    this.endIds = (manifest.generation?.eos_token_ids ?? []).slice(0, 1);
    try {
      const told = JSON.parse(new TextDecoder().decode(tokenizerFile)) as TokenizerFile;
      this.tokenizer = new Tokenizer(told, {});
      this.frame = frameOf(this.tokenizer);
      const known = PADDING_TOKENS.map((token) => this.tokenizer.token_to_id(token)).find((id) => id !== undefined);
      this.padId = told.padding?.pad_id ?? known ?? 0;
      this.padType = told.padding?.pad_type_id ?? 0;
      const unknown = told.model?.unk_token;
      this.unknownId = typeof unknown === "string" ? this.tokenizer.token_to_id(unknown) : undefined;
    } catch (error) {
      throw new HetloraError("bundle_invalid", "the bundle's tokenizer cannot be read", { got: error, cause: error });
    }
  }

  /** The tokens of one text and their types, with the special ones around it, cut to fit. */
  framed(text: string): { ids: number[]; types: number[] } {
    const { before, after, typesBefore, typesAfter, ownType } = this.frame;
    const own = this.own(text).slice(0, Math.max(this.maxTokens - before.length - after.length, 0));
    return {
      ids: [...before, ...own, ...after],
      types: [...typesBefore, ...own.map(() => ownType), ...typesAfter],
    };
  }

  /** The tokens of a whole text, with special ones around it or the end's after it. */
  ids(text: string, options: { isFramed?: boolean; ends?: boolean } = {}): number[] {
    const own = this.own(text);
    const whole = options.isFramed ? [...this.frame.before, ...own, ...this.frame.after] : own;
    return options.ends ? [...whole, ...this.endIds] : whole;
  }

  /** The tokens of a text that is to be gone on with: in `room` it loses its beginning, never what stands before. */
  promptIds(text: string, room: number): number[] {
    const own = this.own(text);
    // Before no text stands all of the frame, as in Python.
    const before = own.length ? this.frame.before : [...this.frame.before, ...this.frame.after];
    const excess = Math.max(before.length + own.length - room, 0);
    return [...before, ...own.slice(excess)].slice(0, Math.max(room, 0));
  }

  /** Rows of token numbers as inputs; rows that graphs of fixed sizes have too many are the first one again. */
  inputs(rows: readonly number[][], types: readonly number[][]): Map<string, Input> {
    const missing = Math.max((this.sizes.rows ?? 0) - rows.length, 0);
    const filled = (own: readonly number[][]) => [...own, ...Array<number[]>(missing).fill(own[0] as number[])];
    const made: Record<(typeof INPUTS)[number], Input> = {
      input_ids: padded(filled(rows), this.padId, this.sizes),
      attention_mask: padded(filled(rows).map((row) => row.map(() => 1)), 0, this.sizes),
      token_type_ids: padded(filled(types), this.padType, this.sizes),
    };
    return new Map(this.names.map((name) => [name, made[name as (typeof INPUTS)[number]]]));
  }

  private own(text: string): number[] {
    const { ids } = this.tokenizer.encode(text, { add_special_tokens: false }) as { ids: (number | undefined)[] };
    // The library has no number for a word that a vocabulary of whole words lacks: Python's takes the token for the
    // unknown. What a vocabulary without such a token does not have is left out, as by Python's.
    return ids.map((id) => id ?? this.unknownId).filter((id) => id !== undefined);
  }
}

/** What of tokenizer.json is read here; the rest is the library's. */
interface TokenizerFile {
  padding?: { pad_id?: number; pad_type_id?: number } | null;
  model?: { unk_token?: unknown };
}

/** Rows as an int64 input (rows, longest row), or of fixed sizes; `filler` stands where there is none. */
export function padded(rows: readonly number[][], filler: number, sizes: FixedSizes): Input {
  const height = Math.max(rows.length, sizes.rows ?? 0);
  const width = Math.max(sizes.tokens ?? 0, ...rows.map((row) => row.length));
  const data = new BigInt64Array(height * width).fill(BigInt(filler));
  rows.forEach((row, place) => data.set(row.map(BigInt), place * width));
  return { dtype: "int64", shape: [height, width], data };
}

function frameOf(tokenizer: Tokenizer): Frame {
  const told = tokenizer.post_processor?.([ANY_TEXT], null, true) ?? { tokens: [ANY_TEXT] };
  const place = told.tokens.indexOf(ANY_TEXT);
  const types = told.token_type_ids ?? told.tokens.map(() => 0);
  const ids = (tokens: readonly string[]) =>
    tokens.map((token) => {
      const id = tokenizer.token_to_id(token);
      if (id === undefined) throw new Error(`special token ${token} has no number`);
      return id;
    });
  return {
    before: ids(told.tokens.slice(0, place)),
    after: ids(told.tokens.slice(place + 1)),
    typesBefore: types.slice(0, place),
    typesAfter: types.slice(place + 1),
    ownType: types[place] ?? 0,
  };
}
