import type { Adapters } from "../adapters/adapters";
import type { CapabilityReport } from "../messages/device";
import type { Bundles } from "../transport/bundles";
import type { Downloads } from "../transport/downloads";
import type { DeviceService } from "../transport/service";
import type { Uploads } from "../transport/uploads";
import type { AssignmentStore } from "./assignmentStore";
import type { DeviceConditions } from "./conditions";
import type { EvaluationTries } from "./evaluationTries";
import type { LocalTrainers } from "./localTrainers";
import type { SessionEvent } from "./visit";

/** What an assignment is worked on with. */
export interface Equipment {
  service: DeviceService;
  downloads: Downloads;
  uploads: Uploads;
  bundles: Bundles;
  assignments: AssignmentStore;
  evaluations: EvaluationTries;
  adapters: Adapters;
  trainers: LocalTrainers;
  /** What the device can do, as it is when it is asked. */
  capabilities: () => Promise<CapabilityReport>;
  conditions: DeviceConditions;
  /** Whether the page was asked to end the visit. */
  isStopped: () => boolean;
  onEvent: (event: SessionEvent) => void;
  /** Seconds, for differences. */
  timer: () => number;
}
