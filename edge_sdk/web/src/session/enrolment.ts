// How a device comes to be one of its population: at the first check-in, or when an operator has said yes.
import { isError } from "../errors/errors";
import { PROTOCOL_VERSIONS } from "../messages/common";
import type { CheckIn, CheckInAnswer, DeviceStatus, EnrolRequest } from "../messages/device";
import type { DeviceService } from "../transport/service";
import { isPending } from "./visit";

/** Why there is no work for a device that an operator has not accepted yet. */
const AWAITING_APPROVAL = "an operator has to accept this device first";

/**
 * Checks in at the newest version of the protocol that both speak. A service that the device is not known to is
 * asked to enrol it first; one that an operator has to accept is told to come back. Throws
 * `protocol_unsupported` where there is no version in common, `refused` where the device is not admitted.
 */
export async function checkIn(
  service: DeviceService,
  request: CheckIn,
  enrolment: EnrolRequest,
  onPending: (status: DeviceStatus) => void,
): Promise<CheckInAnswer> {
  const newest = Math.max(...PROTOCOL_VERSIONS);
  try {
    return await checkInAt(newest);
  } catch (error) {
    if (!isError(error, "protocol_unsupported")) throw error;
    const common = PROTOCOL_VERSIONS.filter((version) => error.spokenVersions.includes(version));
    if (!common.length || Math.max(...common) === newest) throw error;
    return await checkInAt(Math.max(...common));
  }

  async function checkInAt(version: number): Promise<CheckInAnswer> {
    const asked = { ...request, protocol_version: version };
    let status: DeviceStatus;
    try {
      return await service.checkIn(asked);
    } catch (error) {
      // The service knows best whether it knows us: also after it lost its database.
      if (!isError(error, "unknown_device") && !isError(error, "not_permitted")) throw error;
      status = await service.enrol(enrolment); // which answers the state of a device that is enrolled
      if (isError(error, "not_permitted") && !isPending(status)) throw error;
    }
    if (!isPending(status)) return service.checkIn(asked);
    onPending(status);
    return { offer: null, retry_after_seconds: status.retry_after_seconds, reason: AWAITING_APPROVAL };
  }
}
