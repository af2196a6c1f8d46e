// The service as a device sees it: one method per request of docs/protocol.md.
import { bytesOfText } from "../bytes";
import { isError } from "../errors/errors";
import { objectRef, type ObjectRef } from "../messages/common";
import * as device from "../messages/device";
import { messageText, readMessage, type Kind } from "../messages/schema";
import { noService } from "./answers";
import type { Transport } from "./transport";

const FAMILIES = { train: "/device/v1/assignments", evaluate: "/device/v1/evaluations" };

/** Typed requests over a transport; errors are those of `Transport.exchange`. */
export class DeviceService {
  constructor(private readonly transport: Transport) {}

  enrol(request: device.EnrolRequest): Promise<device.DeviceStatus> {
    return this.post("/device/v1/devices", device.enrolRequest, request, device.deviceStatus);
  }

  checkIn(request: device.CheckIn): Promise<device.CheckInAnswer> {
    return this.post("/device/v1/check-ins", device.checkIn, request, device.checkInAnswer);
  }

  start(offer: device.Offer, request: device.StartRequest): Promise<device.Plan> {
    const path = `${FAMILIES[offer.kind]}/${offer.assignment_id}:start`;
    return this.post(path, device.startRequest, request, device.plan);
  }

  async upload(assignmentId: string, update: Uint8Array): Promise<ObjectRef> {
    const headers = { "Content-Type": "application/octet-stream" };
    const path = `/device/v1/assignments/${assignmentId}/update`;
    return this.parsed(objectRef, await this.transport.exchange("PUT", path, { body: update, headers }));
  }

  submit(assignmentId: string, report: device.Report): Promise<device.Receipt> {
    return this.post(`/device/v1/assignments/${assignmentId}:submit`, device.report, report, device.receipt);
  }

  reportEvaluation(assignmentId: string, report: device.EvaluationReport): Promise<device.Receipt> {
    return this.post(`${FAMILIES.evaluate}/${assignmentId}:submit`, device.evaluationReport, report, device.receipt);
  }

  fail(offer: device.Offer, failure: device.Failure): Promise<device.Receipt> {
    const path = `${FAMILIES[offer.kind]}/${offer.assignment_id}:fail`;
    return this.post(path, device.failure, failure, device.receipt);
  }

  private async post<M, A>(path: string, kind: Kind<M>, message: M, answer: Kind<A>): Promise<A> {
    const body = bytesOfText(messageText(kind, message));
    const headers = { "Content-Type": "application/json" };
    return this.parsed(answer, await this.transport.exchange("POST", path, { body, headers }));
  }

  private parsed<A>(answer: Kind<A>, body: Uint8Array): A {
    try {
      return readMessage(answer, body);
    } catch (error) {
      // A captive portal or a proxy perhaps; the service itself may still be there later.
      if (isError(error, "malformed_message")) throw noService(error, `an answer from ${this.transport.serviceUrl}`);
      throw error;
    }
  }
}
