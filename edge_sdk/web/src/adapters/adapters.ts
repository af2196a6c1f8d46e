// The adapters that a device keeps to answer with: of its last round and of the one before, sent and trained.
import { readBytes, type Changes, type Database, type Kept } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import { count, identifier, objectRef, type ObjectRef } from "../messages/common";
import { list, messageText, object, readMessage, real, required, type Of } from "../messages/schema";
import { adapterFromBytes, adapterToBytes, type Adapter } from "../tensors/adapter";
import type { AdapterSpec } from "../tensors/spec";

/** "global" is what the fleet has learned, as a plan sent it; "local" is what training here made of that. */
export type AdapterKind = "global" | "local";
export const ADAPTER_KINDS: readonly AdapterKind[] = ["global", "local"];

const INDEX = "adapters/index";
const KEPT_ROUNDS = 2;

/** What is known of a round of which adapters are kept. */
const storedRound = object({
  run_id: required(identifier),
  round_index: required(count),
  bundle: required(objectRef),
  amplification: required(real({ above: 0 })),
});
export type StoredRound = Of<typeof storedRound>;
const index = object({ rounds: required(list(storedRound, { longest: KEPT_ROUNDS })) });

const keyOf = (round: StoredRound, kind: AdapterKind): string =>
  `adapters/${round.run_id}/${round.round_index}/${kind}`;

export class Adapters {
  constructor(private readonly database: Database) {}

  /** The rounds of which adapters are kept, the newest first. */
  async rounds(): Promise<readonly StoredRound[]> {
    const kept = await this.database.read(INDEX);
    try {
      return typeof kept === "string" ? readMessage(index, kept).rounds : [];
    } catch (error) {
      if (isError(error, "malformed_message")) return []; // of another version
      throw error;
    }
  }

  /**
   * Keeps what a round sent and what training made of it, both or neither, and drops those of the round before the
   * last. In a full database nothing changes: the update is worth more.
   */
  async keepRound(round: StoredRound, sent: Adapter, trained: Adapter): Promise<void> {
    const isSame = (own: StoredRound) => own.run_id === round.run_id && own.round_index === round.round_index;
    const rounds = [round, ...(await this.rounds()).filter((own) => !isSame(own))].slice(0, KEPT_ROUNDS);
    const keys = new Set(rounds.flatMap((own) => ADAPTER_KINDS.map((kind) => keyOf(own, kind))));
    const gone = (await this.database.keys("adapters/")).filter((key) => !keys.has(key));
    const changes = new Map<string, Kept | undefined>(gone.map((key) => [key, undefined]));
    changes.set(keyOf(round, "global"), adapterToBytes(sent)).set(keyOf(round, "local"), adapterToBytes(trained));
    await this.written(changes.set(INDEX, messageText(index, { rounds })));
  }

  /** One of them. Throws `no_adapter` where it is not kept any more, and as `adapterFromBytes`. */
  async read(round: StoredRound, kind: AdapterKind, spec: AdapterSpec): Promise<Adapter> {
    const bytes = await readBytes(this.database, keyOf(round, kind));
    if (bytes) return adapterFromBytes(bytes, spec);
    throw new HetloraError("no_adapter", "this device does not keep that adapter", {
      got: `${kind} of round ${round.round_index}`, expected: "one of its last two rounds",
    });
  }

  private async written(changes: Changes): Promise<void> {
    try {
      await this.database.write(changes);
    } catch (error) {
      if (!isError(error, "disk_full")) throw error;
    }
  }
}

/** What is noted of a round that a device took part in with a bundle. */
export const roundOf = (
  of: { run_id: string; round_index: number }, bundle: ObjectRef, amplification: number,
): StoredRound => ({ run_id: of.run_id, round_index: of.round_index, bundle, amplification });
