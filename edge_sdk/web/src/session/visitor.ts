// One visit of a device to its service: may it work, is there work, and how did it end.
import { HetloraError, isError } from "../errors/errors";
import { ANY_TIME, type Conditions } from "../messages/conditions";
import type { CheckInAnswer, EnrolRequest, Offer } from "../messages/device";
import { TrainingAssignment } from "./trainingAssignment";
import { EvaluationAssignment } from "./evaluationAssignment";
import type { Update } from "./assignmentStore";
import { checkIn } from "./enrolment";
import type { Equipment } from "./equipment";
import { NOT_ALLOWED_SECONDS, type Visit } from "./visit";

export const SDK_VERSION = "0.1.0";
const LOCK = "hetlora-visit";
const LEFT_ALONE_SECONDS = 3600;

/** Visits the service for one device; one at a time. */
export class Visitor {
  /** What a run asked that this device did not meet, and when: it is not asked again before that holds. */
  private leftAlone: { conditions: Conditions; since: number } | null = null;

  constructor(
    private readonly enrolment: EnrolRequest,
    private readonly tools: Equipment,
    /** Tells tabs of one browser from each other; null where there is but one. */
    private readonly locks: LockManager | null = (globalThis.navigator as Navigator | undefined)?.locks ?? null,
  ) {}

  /**
   * One visit, from the conditions to the receipt. Throws `service_away` where the service is: what was done is
   * kept for a later visit; `refused` where the device is not admitted; `state_conflict` where another tab is
   * visiting, as both would write to the one database.
   */
  async once(): Promise<Visit> {
    if (!this.locks) return this.untilStopped();
    return this.locks.request(LOCK, { ifAvailable: true }, (lock) => {
      if (lock) return this.untilStopped();
      throw new HetloraError("state_conflict", "another tab of this browser is at work for this device");
    });
  }

  private async untilStopped(): Promise<Visit> {
    try {
      return await this.visit();
    } catch (error) {
      if (!isError(error, "stopped")) throw error;
      return { outcome: "stopped", reason: error.what, retryAfterSeconds: 0 };
    }
  }

  private async visit(): Promise<Visit> {
    const { tools } = this;
    const reason = tools.conditions.unmet(this.conditions());
    if (reason !== null) return { outcome: "not_allowed", reason, retryAfterSeconds: NOT_ALLOWED_SECONDS };
    const answer = await this.checkIn();
    tools.onEvent({ kind: "checked_in", answer });
    await this.giveUpOthers(answer.offer);
    if (!answer.offer) {
      return { outcome: "no_work", reason: answer.reason, retryAfterSeconds: answer.retry_after_seconds };
    }
    const visit = await new (answer.offer.kind === "train" ? TrainingAssignment : EvaluationAssignment)(answer.offer, tools).run();
    if (visit.code === "conditions_unmet") {
      this.leftAlone = { conditions: answer.offer.conditions, since: tools.timer() };
    }
    return visit;
  }

  /** What has to hold before the service is asked: for an hour, as there may be another run, or other conditions. */
  private conditions(): Conditions {
    const passed = this.tools.timer() - (this.leftAlone?.since ?? 0);
    return this.leftAlone && passed < LEFT_ALONE_SECONDS ? this.leftAlone.conditions : ANY_TIME;
  }

  private async checkIn(): Promise<CheckInAnswer> {
    const { tools, enrolment } = this;
    const request = {
      protocol_version: 0, // whichever both speak
      sdk_version: SDK_VERSION,
      population: enrolment.population,
      capabilities: await tools.capabilities(),
      example_count: await tools.trainers.exampleCount(),
      held_out_count: await tools.trainers.heldOutCount(),
    };
    return checkIn(tools.service, request, enrolment, (status) =>
      tools.onEvent({ kind: "awaiting_approval", deviceId: status.device_id }),
    );
  }

  /** Drops the assignment under way, unless this check-in offered it: the service alone knows when it is over. */
  private async giveUpOthers(offer: Offer | null): Promise<void> {
    const { assignments, onEvent } = this.tools;
    const status = await assignments.status();
    const own = offer?.kind === "train" ? offer.assignment_id : null;
    if (!status || status.assignmentId === own) return;
    // An update may have been accepted before this device could note it, so that is asked.
    const update = await assignments.update();
    if (update && (await this.wasAccepted(status.assignmentId, update))) return;
    const givenUp = await assignments.giveUpOthers(own);
    if (givenUp !== null) onEvent({ kind: "given_up", assignmentId: givenUp });
  }

  private async wasAccepted(assignmentId: string, update: Update): Promise<boolean> {
    const { service, assignments, onEvent } = this.tools;
    try {
      const receipt = await service.submit(assignmentId, update.report);
      if (receipt.state !== "accepted") return false;
      await assignments.delivered(update.errors, update.unkeptFactors);
      onEvent({ kind: "submitted", report: update.report, receipt });
      return true;
    } catch (error) {
      if (isError(error, "refused") || isError(error, "invalid_input")) return false;
      throw error;
    }
  }
}
