import assert from "node:assert/strict";
import { test } from "node:test";
import { HetloraError } from "../src/errors/errors";
import { problem } from "../src/messages/common";
import { isWithin } from "../src/messages/conditions";
import * as device from "../src/messages/device";
import { isOfSmallOrder } from "../src/messages/publicKey";
import { messageText, readMessage, type Kind } from "../src/messages/schema";
import { literal, literalText } from "./contractFiles";

const MESSAGES: Record<string, Kind<any>> = {
  "check_in.json": device.checkIn,
  "check_in_answer_conditions.json": device.checkInAnswer,
  "check_in_answer_evaluation.json": device.checkInAnswer,
  "check_in_answer_offer.json": device.checkInAnswer,
  "check_in_answer_retry.json": device.checkInAnswer,
  "check_in_answer_scores.json": device.checkInAnswer,
  "check_in_answer_variants.json": device.checkInAnswer,
  "check_in_held_out.json": device.checkIn,
  "check_in_measured.json": device.checkIn,
  "device_status.json": device.deviceStatus,
  "enrol_request.json": device.enrolRequest,
  "evaluation_report.json": device.evaluationReport,
  "failure.json": device.failure,
  "plan.json": device.plan,
  "problem.json": problem,
  "receipt.json": device.receipt,
  "report.json": device.report,
  "report_scores.json": device.report,
  "start_request.json": device.startRequest,
  "start_request_variant.json": device.startRequest,
};

for (const [name, kind] of Object.entries(MESSAGES)) {
  test(`${name} is read and written as pinned`, () => {
    const message = readMessage(kind, literalText(name));
    assert.deepEqual(JSON.parse(messageText(kind, message)), literal(name));
  });
}

function refusal(kind: Kind<unknown>, message: unknown): HetloraError {
  try {
    readMessage(kind, JSON.stringify(message));
  } catch (error) {
    assert.ok(error instanceof HetloraError);
    return error;
  }
  return assert.fail("nothing was refused");
}

const hostile: [string, string, (told: any) => void][] = [
  ["an unknown field", "check_in_answer_offer.json", (told) => (told.offer.surprise = 1)],
  ["a missing field", "check_in_answer_offer.json", (told) => delete told.offer.run_id],
  ["a text for a number", "plan.json", (told) => (told.rank = "8")],
  ["true for a number", "plan.json", (told) => (told.rank = true)],
  ["a fraction for a count", "plan.json", (told) => (told.seed = 1.5)],
  ["more than JSON keeps", "plan.json", (told) => (told.seed = 2 ** 53)],
  ["half of a surrogate pair", "receipt.json", (told) => (told.reason = "\ud800")],
  ["NUL", "receipt.json", (told) => (told.reason = "a\0b")],
  ["a moment without its zone", "plan.json", (told) => (told.lease_expires_at = "2026-11-20T12:15:00")],
  ["ranks that fall", "plan.json", (told) => (told.adaptation.ranks = [1, 0])],
  ["feedback of nothing", "plan.json", (told) => (told.adaptation.error_feedback = true)],
  ["an id with a slash", "plan.json", (told) => (told.assignment_id = "a/../b")],
  ["warm-up to the end", "check_in_answer_offer.json", (told) => (told.offer.training.warm_up_steps = 10)],
  ["momentum of AdamW", "check_in_answer_offer.json", (told) => (told.offer.training.momentum = 0.5)],
  ["nine variants", "check_in_answer_variants.json", (told) => (told.offer.variants = Array(9).fill(told.offer.bundle))],
  ["hours of no length", "check_in_answer_conditions.json", (told) => (told.offer.conditions.hours = ["01:00-01:00"])],
];
for (const [what, name, spoil] of hostile) {
  test(`a message with ${what} is refused`, () => {
    const told = literal(name);
    spoil(told);
    assert.equal(refusal(MESSAGES[name]!, told).code, "malformed_message");
  });
}

test("a refusal names the field, and what was expected", () => {
  const told = literal("check_in_answer_offer.json");
  told.offer.training.steps = 0;
  assert.match(refusal(device.checkInAnswer, told).message, /^offer\.training\.steps; got 0; expected within/);
});

test("a plan of an older service means a plain adapter", () => {
  const { adaptation: _adaptation, frozen: _frozen, ...told } = literal("plan.json");
  const plan = readMessage(device.plan, JSON.stringify(told));
  assert.deepEqual([plan.adaptation, plan.frozen], [device.PLAIN, null]);
});

test("keys of small order are refused, also in encodings that are not canonical", () => {
  const zero = new Uint8Array(32);
  const prime = new Uint8Array(32).fill(0xff);
  [prime[0], prime[31]] = [0xed, 0x7f];
  assert.ok(isOfSmallOrder(zero) && isOfSmallOrder(prime));
  const told = { ...literal("enrol_request.json"), public_key: `${"A".repeat(43)}=` };
  assert.equal(refusal(device.enrolRequest, told).code, "malformed_message");
});

test("hours may span midnight, and their end is no part of them", () => {
  const found = ["21:59", "22:00", "05:59", "06:00"].map((time) => {
    const [hour, minute] = time.split(":").map(Number);
    return isWithin(60 * hour! + minute!, "22:00-06:00");
  });
  assert.deepEqual(found, [false, true, true, false]);
});
