// The assignment that a device is at, in its database: from there the next page goes on.
import type { Changes, Database, Kept } from "../database/database";
import { HetloraError, isError } from "../errors/errors";
import { report as reportKind, type Offer, type Report } from "../messages/device";
import { messageText, readMessage, type Kind } from "../messages/schema";
import { droppedParts, keptParts, part } from "./parts";
import { isLegal, isOver, type Progress } from "./progress";
import { keptRunTensors, runTensors, type RunTensors } from "./runTensors";
import { terms as termsKind, trained as trainedKind, type Terms, type Trained } from "./terms";

const ROW = "assignment";

/** What is known of the one assignment. Messages are JSON texts; `starts` are those since the last checkpoint. */
interface Row {
  assignmentId: string;
  runId: string;
  progress: Progress;
  steps: number;
  trainedSteps: number;
  starts: number;
  terms: string | null;
  trained: string | null;
  report: string | null;
}

export interface AssignmentStatus {
  assignmentId: string;
  progress: Progress;
  trainedSteps: number;
  steps: number;
}

/** A training as it is kept, between two steps. */
export interface Checkpoint {
  trained: Trained;
  state: Uint8Array;
}

/** What a device delivers. */
export interface Update {
  bytes: Uint8Array;
  report: Report;
  /** What rounding left out; stays on the device once this is accepted. */
  errors: Uint8Array | null;
  /** lora_B of this update where it stays on the device, for the next round of the run; null once it is kept. */
  unkeptFactors: Uint8Array | null;
}

/**
 * Moves one assignment from state to state; a move and what goes with it are one write. What is damaged, or was
 * written by another version, is as good as not there. Throws `state_conflict` for a move that is not legal.
 */
export class AssignmentStore {
  constructor(private readonly database: Database) {}

  async status(): Promise<AssignmentStatus | null> {
    return this.row();
  }

  /** Drops an assignment that is under way, unless it is this one; answers which was dropped. */
  async giveUpOthers(assignmentId: string | null): Promise<string | null> {
    const row = await this.row();
    if (!row || row.assignmentId === assignmentId || isOver(row.progress)) return null;
    await this.end(row, "given_up", new Map());
    return row.assignmentId;
  }

  /** Begins with an offer, or goes on with the assignment if it is the one of this offer. */
  async offered(offer: Offer): Promise<void> {
    const row = await this.row();
    if (row && !isOver(row.progress)) {
      if (row.assignmentId === offer.assignment_id) return;
      throw new HetloraError("state_conflict", "another assignment is under way", { got: row.assignmentId });
    }
    const fresh: Row = {
      assignmentId: offer.assignment_id, runId: offer.run_id, progress: "offered",
      steps: offer.training.steps, trainedSteps: 0, starts: 0, terms: null, trained: null, report: null,
    };
    await this.put(fresh, await droppedParts(this.database));
  }

  /** The service has said what is to be done, and all that it sends for that is here. */
  async taken(agreed: Terms, received: Uint8Array): Promise<void> {
    const row = await this.moved("taken");
    // All that came stays: of the starts this one alone counts on.
    const noted = { ...row, starts: Math.min(row.starts, 1), terms: messageText(termsKind, agreed) };
    await this.put(noted, await keptParts({ received }));
  }

  /** What the offer was taken at and what came, if the assignment is taken and not yet trained. */
  async agreed(): Promise<{ terms: Terms; received: Uint8Array } | null> {
    const row = await this.row();
    const agreed = parsed(termsKind, row?.terms);
    const received = await part(this.database, "received");
    return agreed && received ? { terms: agreed, received } : null;
  }

  /** Forgets all but the offer, as what is stored cannot be used. */
  async beginAnew(): Promise<void> {
    const row = await this.moved("offered");
    await this.put({ ...row, trainedSteps: 0, terms: null, trained: null, report: null }, await droppedParts(this.database));
  }

  /** Keeps a checkpoint in the place of the one before. */
  async checkpointed(so: Trained, state: Uint8Array): Promise<void> {
    const row = await this.moved("training");
    const noted = { ...row, trained: messageText(trainedKind, so), trainedSteps: so.steps, starts: 0 };
    await this.put(noted, await keptParts({ checkpoint: state }));
  }

  async checkpoint(): Promise<Checkpoint | null> {
    const so = parsed(trainedKind, (await this.row())?.trained);
    const state = await part(this.database, "checkpoint");
    return so && state ? { trained: so, state } : null;
  }

  /** How often training was begun since the last checkpoint, and ended with its page or goes on. */
  async starts(): Promise<number> {
    return (await this.row())?.starts ?? 0;
  }

  /** A training begins (1), or has ended and its page has not (-1). */
  async countStart(change: 1 | -1): Promise<void> {
    const row = await this.row();
    if (row) await this.put({ ...row, starts: Math.max(0, row.starts + change) }, new Map());
  }

  /** Training is over: keeps the update, and drops what it was made from. */
  async trained(update: Update): Promise<void> {
    const row = await this.moved("trained");
    const files = { update: update.bytes, ...(update.errors ? { errors: update.errors } : {}) };
    const changes = [...(await droppedParts(this.database)), ...(await keptParts(files))];
    const kept = await this.forRun("private_factors", row, update.unkeptFactors);
    const steps = { trainedSteps: update.report.steps, starts: 0 };
    await this.put({ ...row, ...steps, report: messageText(reportKind, update.report) }, new Map([...changes, ...kept]));
  }

  /** The update that is to be delivered, if the assignment is trained. */
  async update(): Promise<Update | null> {
    const row = await this.row();
    const report = row?.progress === "trained" ? parsed(reportKind, row.report) : null;
    const bytes = await part(this.database, "update");
    if (!report || !bytes) return null;
    return { bytes, report, errors: await part(this.database, "errors"), unkeptFactors: null };
  }

  /** The service has answered for the update; what belongs to the run's next round is kept for the run. */
  async delivered(errors: Uint8Array | null, unkeptFactors: Uint8Array | null): Promise<void> {
    const row = await this.moved("delivered");
    const left = await this.forRun("rounding_errors", row, errors);
    const factors = await this.forRun("private_factors", row, unkeptFactors);
    await this.end(row, "delivered", new Map([...left, ...factors]));
  }

  /** What is kept of a run from round to round. */
  async runTensors(kind: RunTensors, runId: string): Promise<Uint8Array | null> {
    return runTensors(this.database, kind, runId);
  }

  private async forRun(kind: RunTensors, row: Row, file: Uint8Array | null): Promise<Changes> {
    return file ? keptRunTensors(this.database, kind, row.runId, file) : new Map();
  }

  private async row(): Promise<Row | null> {
    const kept = (await this.database.read(ROW)) as Row | undefined;
    return kept ?? null;
  }

  private async moved(next: Progress): Promise<Row> {
    const row = await this.row();
    if (row && isLegal(row.progress, next)) return { ...row, progress: next };
    throw new HetloraError("state_conflict", `an assignment on this device cannot become ${next}`, {
      got: row?.progress ?? "no assignment",
    });
  }

  private async end(row: Row, progress: Progress, others: ReadonlyMap<string, Kept>): Promise<void> {
    const changes = new Map([...(await droppedParts(this.database)), ...others]);
    await this.put({ ...row, progress, terms: null, trained: null, report: null }, changes);
  }

  private async put(row: Row, others: ReadonlyMap<string, Kept>): Promise<void> {
    await this.database.write(new Map([...others, [ROW, row]]));
  }
}

/** A message that was stored, if it is one to this version. */
function parsed<T>(kind: Kind<T>, text: string | null | undefined): T | null {
  try {
    return text ? readMessage(kind, text) : null;
  } catch (error) {
    if (isError(error, "malformed_message")) return null;
    throw error;
  }
}
