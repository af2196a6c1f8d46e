import type { Adapters } from "../adapters/adapters";
import type { CapabilityReport } from "../messages/device";
import type { Conditions } from "../messages/conditions";
import type { Bundles } from "../transport/bundles";
import type { Downloads } from "../transport/downloads";
import type { DeviceService } from "../transport/service";
import type { Uploads } from "../transport/uploads";
import type { AssignmentStore } from "./assignmentStore";
import type { EvaluationTries } from "./evaluationAssignment";
import type { LocalTrainer } from "./localTrainer";
import type { SessionEvent } from "./visit";

/** Looks whether a device may work; cheap enough to be asked between any two steps. */
export interface Watch {
  /** What keeps the device from working now, in words, by the page's own conditions and the run's; or null. */
  unmet(ofRun: Conditions): string | null;
  /** What keeps it from sending now, in words. */
  metered(ofRun: Conditions): string | null;
  /** Whether the page was asked to end the visit. */
  isStopped(): boolean;
}

/** What an assignment is worked on with. */
export interface Equipment {
  service: DeviceService;
  downloads: Downloads;
  uploads: Uploads;
  bundles: Bundles;
  assignments: AssignmentStore;
  evaluations: EvaluationTries;
  adapters: Adapters;
  trainer: LocalTrainer;
  /** What the device can do, as it is when it is asked. */
  capabilities: () => Promise<CapabilityReport>;
  watch: Watch;
  onEvent: (event: SessionEvent) => void;
  /** Seconds, for differences. */
  timer: () => number;
}
