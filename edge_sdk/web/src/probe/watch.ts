// Whether the device may work at this moment, by what the page and the operator of a run ask; as edge_sdk/conditions.py.
import { isWithin, type Conditions } from "../messages/conditions";
import type { Watch } from "../session/equipment";
import type { BrowserFacts } from "./browser";

/** Looks at the facts of the last `take`; it is cheap enough to be asked between any two steps. */
export class BrowserWatch implements Watch {
  private isEnding = false;

  constructor(
    private facts: BrowserFacts,
    private readonly own: Conditions,
    private readonly now: () => Date = () => new Date(),
  ) {}

  take(facts: BrowserFacts): void {
    this.facts = facts;
  }

  stop(): void {
    this.isEnding = true;
  }

  isStopped(): boolean {
    return this.isEnding;
  }

  unmet(ofRun: Conditions): string | null {
    return this.unmetOf(this.own) ?? this.unmetOf(ofRun);
  }

  metered(ofRun: Conditions): string | null {
    return this.network(this.own) ?? this.network(ofRun);
  }

  private unmetOf(asked: Conditions): string | null {
    // Temperature and free memory are nothing that a page learns; what nobody knows forbids nothing.
    const use = asked.idle ? "a page does not know whether the device is idle" : null;
    return this.power(asked) ?? this.network(asked) ?? use ?? this.time(asked);
  }

  private power(asked: Conditions): string | null {
    const { battery } = this.facts;
    if (battery === null) return null;
    if (asked.charging && !battery.isCharging) return "the device runs on its battery";
    const least = asked.min_battery_percent;
    if (least === null || battery.percent >= least) return null;
    return `the battery is at ${battery.percent.toFixed(0)} %, ${least} % are wanted`;
  }

  private network(asked: Conditions): string | null {
    const { network, savesData } = this.facts;
    if (!asked.unmetered) return null;
    if (savesData) return "the user has asked for less traffic";
    if (network === "ethernet" || network === "wifi") return null;
    return network === null ? "the network may be metered" : `the network, ${network}, may be metered`;
  }

  private time(asked: Conditions): string | null {
    const now = this.now();
    const minutes = 60 * now.getHours() + now.getMinutes();
    if (!asked.hours.length || asked.hours.some((part) => isWithin(minutes, part))) return null;
    return `it is ${now.toTimeString().slice(0, 5)}, and not within ${asked.hours.join(" or ")}`;
  }
}
