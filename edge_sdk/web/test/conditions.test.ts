// What the Python device answers to the cases of tests/contract/conditions.json, this one answers, too.
import assert from "node:assert/strict";
import { test } from "node:test";
import { HetloraError } from "../src/errors/errors";
import { conditions } from "../src/messages/conditions";
import { DeviceConditions, type Moment } from "../src/session/conditions";
import { literal } from "./contractFiles";

function moment(one: any): Moment {
  const { battery = null, temperature_celsius = null, memory = null, network = null } = one.device ?? {};
  const [hour, minute] = (one.moment ?? "12:00").split(":").map(Number);
  const app: Moment["app"] = {};
  if ("charging" in (one.app ?? {})) app.isCharging = one.app.charging;
  if ("metered" in (one.app ?? {})) app.isMetered = one.app.metered;
  if ("idle" in (one.app ?? {})) app.isIdle = one.app.idle;
  return {
    battery: battery && { percent: battery.percent, isOnExternalPower: battery.is_on_external_power },
    temperatureCelsius: temperature_celsius,
    freeMemoryBytes: memory?.available_bytes ?? null,
    network,
    minutes: 60 * hour + minute,
    app,
  };
}

function watched(one: any): unknown {
  const [own, ofRun] = [one.own, one.of_run].map((asked) => conditions.read(asked ?? {}, ""));
  try {
    const device = new DeviceConditions(own, () => moment(one));
    return { unmet: device.unmet(ofRun!), metered: device.metered(ofRun!), reserved_bytes: device.reservedBytes(ofRun!) };
  } catch (error) {
    assert.ok(error instanceof HetloraError);
    return { error: { code: error.code, what: error.what, got: error.got, expected: error.expected } };
  }
}

for (const one of literal("conditions.json").cases) {
  test(`conditions as pinned: ${one.name}`, () => assert.deepEqual(watched(one), one.expected));
}
