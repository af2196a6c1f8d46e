// A browser's device as the conditions look at it.
import type { Moment } from "../session/conditions";
import type { BrowserFacts } from "./browser";

/** Temperature and free memory are nothing that a page learns, and nothing tells it whether the device is idle. */
export function momentOf({ battery, network, savesData }: BrowserFacts, now: Date): Moment {
  return {
    battery: battery && { percent: battery.percent, isOnExternalPower: battery.isCharging },
    temperatureCelsius: null,
    freeMemoryBytes: null,
    network,
    minutes: 60 * now.getHours() + now.getMinutes(),
    // Who asks for less traffic has a network that costs.
    app: { isMetered: savesData ? true : null },
  };
}
