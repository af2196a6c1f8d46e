// When a device may work: what its app, and the operator of a run, ask of the moment.
import { count } from "./common";
import { bool, defaulted, list, nullable, object, real, refuse, text, type Kind, type Of } from "./schema";

const hoursText = text({ pattern: /^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$/ });

/** A part of each day in the device's own time, such as 22:00-06:00; its end is no part of it. */
const hours: Kind<string> = {
  read: (value, place) => {
    const told = hoursText.read(value, place);
    const [begin, end] = told.split("-");
    return begin === end ? refuse(place, told, "of some length") : told;
  },
  written: (value) => value,
};

/** What must hold for a device to work; what is left out asks nothing. */
export const conditions = object({
  charging: defaulted(bool, false),
  unmetered: defaulted(bool, false),
  idle: defaulted(bool, false),
  min_battery_percent: defaulted(nullable(real({ least: 0, most: 100 })), null),
  max_temperature_celsius: defaulted(nullable(real({ least: -40, most: 150 })), null),
  min_free_memory_bytes: defaulted(nullable(count), null),
  hours: defaulted(list(hours, { longest: 8 }), []),
});
export type Conditions = Of<typeof conditions>;

/** Conditions that ask nothing. */
export const ANY_TIME: Conditions = conditions.read({}, "");

/** Whether a time of day, in minutes, lies in a part of the day, which may span midnight. */
export function isWithin(minutes: number, part: string): boolean {
  const [begin, end] = part.split("-").map((word) => 60 * Number(word.slice(0, 2)) + Number(word.slice(3)));
  return begin! < end! ? begin! <= minutes && minutes < end! : !(end! <= minutes && minutes < begin!);
}
