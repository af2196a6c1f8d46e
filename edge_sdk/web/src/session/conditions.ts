// Whether a device may work at a moment: what is asked of it, and how the device finds it. The answers are those
// of the Python SDK, and tests/contract/conditions.json holds both to them.
//
// What a device cannot find out of itself counts as given, but for what only its app knows (`idle`), and for a
// network that may be anybody's (`unmetered`): it must not cost anyone money or a slow screen.
import { HetloraError } from "../errors/errors";
import { ANY_TIME, isWithin, type Conditions } from "../messages/conditions";
import { MIB } from "../planning/forecast";
import { nearestEven } from "../tensors/rounding";

/** A device at a moment; null is unknown. */
export interface Moment {
  battery: { percent: number | null; isOnExternalPower: boolean | null } | null;
  temperatureCelsius: number | null;
  freeMemoryBytes: number | null;
  /** ethernet, wifi, cellular or other. */
  network: string | null;
  /** Minutes of the device's own day. */
  minutes: number;
  /** What the app knows better. */
  app: { isCharging?: boolean | null; isMetered?: boolean | null; isIdle?: boolean | null };
}

/**
 * Looks whether a device may work; cheap enough to be asked between any two steps. Of what the app asks and what the
 * run asks both must hold: a run may ask more, never less.
 */
export class DeviceConditions {
  /** Throws `settings_invalid` where the app asks for an idle device, and does not tell when it is. */
  constructor(
    /** What the app asks. */
    private readonly own: Conditions = ANY_TIME,
    private readonly moment: () => Moment = unknownMoment,
  ) {
    if (!own.idle || moment().app.isIdle !== undefined) return;
    throw new HetloraError("settings_invalid", "conditions ask for an idle device", {
      got: "no is_idle",
      expected: "one to ask",
    });
  }

  /** What keeps the device from working now, in words; null if it may. */
  unmet(ofRun: Conditions): string | null {
    const now = this.moment();
    return unmetBy(this.own, now) ?? unmetBy(ofRun, now);
  }

  /** What keeps it from sending now, in words. */
  metered(ofRun: Conditions): string | null {
    const now = this.moment();
    return meteredBy(this.own, now) ?? meteredBy(ofRun, now);
  }

  /** The memory that is to stay free for others. */
  reservedBytes(ofRun: Conditions): number {
    return Math.max(this.own.min_free_memory_bytes ?? 0, ofRun.min_free_memory_bytes ?? 0);
  }
}

/** A moment of which nothing is known but the time. */
function unknownMoment(): Moment {
  const now = new Date();
  const minutes = 60 * now.getHours() + now.getMinutes();
  return { battery: null, temperatureCelsius: null, freeMemoryBytes: null, network: null, minutes, app: {} };
}

function unmetBy(asked: Conditions, moment: Moment): string | null {
  return (
    power(asked, moment) ?? meteredBy(asked, moment) ?? use(asked, moment) ??
    temperature(asked, moment) ?? memory(asked, moment) ?? time(asked, moment)
  );
}

function power(asked: Conditions, { battery, app }: Moment): string | null {
  const isCharging = app.isCharging ?? battery?.isOnExternalPower ?? null;
  if (asked.charging && isCharging === false) return "the device runs on its battery";
  const [least, percent] = [asked.min_battery_percent, battery?.percent ?? null];
  if (least === null || percent === null || percent >= least) return null;
  return `the battery is at ${nearestEven(percent)} %, ${least} % are wanted`;
}

function meteredBy(asked: Conditions, { network, app }: Moment): string | null {
  if (!asked.unmetered) return null;
  const isMetered = app.isMetered ?? null;
  if (isMetered !== null) return isMetered ? "the network is metered" : null;
  if (network === "ethernet" || network === "wifi") return null;
  return network === null ? "the network may be metered" : `the network, ${network}, may be metered`;
}

function use(asked: Conditions, { app }: Moment): string | null {
  if (!asked.idle) return null;
  const isIdle = app.isIdle ?? null;
  if (isIdle === null) return "the app does not tell whether the device is idle";
  return isIdle ? null : "the device is in use";
}

function temperature(asked: Conditions, { temperatureCelsius: celsius }: Moment): string | null {
  const most = asked.max_temperature_celsius;
  if (most === null || celsius === null || celsius <= most) return null;
  return `the processor is at ${nearestEven(celsius)} degrees Celsius, ${most} are allowed`;
}

function memory(asked: Conditions, { freeMemoryBytes: free }: Moment): string | null {
  const least = asked.min_free_memory_bytes;
  if (least === null || free === null || free >= least) return null;
  return `${nearestEven(free / MIB)} MiB of memory are free, ${nearestEven(least / MIB)} are to stay so`;
}

function time(asked: Conditions, { minutes }: Moment): string | null {
  if (!asked.hours.length || asked.hours.some((part) => isWithin(minutes, part))) return null;
  const [hour, minute] = [Math.floor(minutes / 60), minutes % 60].map((own) => String(own).padStart(2, "0"));
  return `it is ${hour}:${minute}, and not within ${asked.hours.join(" or ")}`;
}
