// A device in a page: its key, its database and its service, put together.
import { Adapters } from "./adapters/adapters";
import { Answers } from "./adapters/answers";
import type { Database } from "./database/database";
import { HetloraError, isError } from "./errors/errors";
import { openIdentity, type Identity } from "./identity/identity";
import { enrolRequest, type CapabilityReport, type EnrolRequest } from "./messages/device";
import { AssignmentStore } from "./session/assignmentStore";
import { DeviceConditions } from "./session/conditions";
import type { Equipment } from "./session/equipment";
import { EvaluationTries } from "./session/evaluationTries";
import type { LocalTrainers } from "./session/localTrainers";
import type { SessionEvent, Visit } from "./session/visit";
import { Visitor } from "./session/visitor";
import { Bundles } from "./transport/bundles";
import { Downloads } from "./transport/downloads";
import { DeviceService } from "./transport/service";
import { browserSurroundings, Transport, type Surroundings } from "./transport/transport";
import { Uploads } from "./transport/uploads";

/** What it takes to fetch in the name of a device. */
interface FetchingOptions {
  serviceUrl: string;
  database: Database;
  surroundings?: Surroundings;
  /** Tells tabs of one browser from each other; null where there is but one. The browser's own, if left out. */
  locks?: LockManager | null;
}

export interface ClientOptions extends FetchingOptions {
  population: string;
  /** Admits the device at its first check-in; null where an operator preauthorized it. */
  enrolmentToken: string | null;
  /** What operators see of it. */
  name: string;
  trainers: LocalTrainers;
  capabilities: () => Promise<CapabilityReport>;
  /** When the device may work. Left out, nothing is asked but by the run, and nothing is known. */
  conditions?: DeviceConditions;
  onEvent?: (event: SessionEvent) => void;
  /** Ends the visit with the step that is under way. */
  stop?: AbortSignal;
  uploadPartBytes?: number;
}

export interface AnswerOptions extends FetchingOptions {
  /** How much more the browser would keep. */
  freeBytes: () => Promise<number>;
  /** Starts the worker, `worker.js` of the build. */
  startWorker: () => Worker;
}

/** One device. */
export class EdgeClient {
  private constructor(
    readonly deviceId: string,
    private readonly visitor: Visitor,
  ) {}

  /** Opens what is kept of a device, or makes a new one. Throws `settings_invalid`, `dependency_missing`. */
  static async open(options: ClientOptions): Promise<EdgeClient> {
    const { database, stop } = options;
    const identity = await openIdentity(database, options.locks);
    const enrolment = enrolmentOf(options, identity.publicKey);
    const surroundings = options.surroundings ?? browserSurroundings(stop);
    const { transport, downloads, adapters, bundles } = fetching(
      { ...options, surroundings }, identity, async () => (await options.capabilities()).disk_free_bytes,
    );
    const equipment: Equipment = {
      service: new DeviceService(transport),
      downloads,
      uploads: new Uploads(transport, options.uploadPartBytes),
      bundles,
      assignments: new AssignmentStore(database),
      evaluations: new EvaluationTries(database, () => surroundings.clock()),
      adapters,
      trainers: options.trainers,
      capabilities: options.capabilities,
      conditions: options.conditions ?? new DeviceConditions(),
      isStopped: () => stop?.aborted ?? false,
      onEvent: options.onEvent ?? (() => undefined),
      timer: () => surroundings.timer(),
    };
    const visitor = new Visitor(enrolment, equipment, options.locks);
    return new EdgeClient(identity.deviceId, visitor);
  }

  /** One visit to the service; see `Visitor.once`. */
  runOnce(): Promise<Visit> {
    return this.visitor.once();
  }
}

/**
 * Answers of the adapters that a device's visits have left in its database, whether or not there are visits now.
 * Their downloads are their own: what a question fetches counts for no round, and does not end with a visit.
 */
export function openAnswers(options: AnswerOptions): Answers {
  const { database, locks, freeBytes, startWorker } = options;
  // When there is a question: this browser has its key then, or would have no adapter.
  const bundles = async () => fetching(options, await openIdentity(database, locks), freeBytes).bundles;
  return new Answers(new Adapters(database), bundles, startWorker);
}

function fetching(options: FetchingOptions, identity: Identity, freeBytes: () => Promise<number>) {
  const transport = new Transport(options.serviceUrl, identity, options.surroundings);
  const downloads = new Downloads(transport, options.database);
  const adapters = new Adapters(options.database);
  const needed = async () => (await adapters.rounds()).map((round) => round.bundle);
  return { transport, downloads, adapters, bundles: new Bundles(options.database, downloads, freeBytes, needed) };
}

function enrolmentOf(options: ClientOptions, publicKey: string): EnrolRequest {
  const told = {
    population: options.population, enrolment_token: options.enrolmentToken, public_key: publicKey,
    name: options.name,
  };
  try {
    return enrolRequest.read(told, "");
  } catch (error) {
    if (!isError(error, "malformed_message")) throw error;
    throw new HetloraError("settings_invalid", "this device cannot enrol under these settings", {
      got: error,
      cause: error,
    });
  }
}
