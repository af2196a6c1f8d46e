// Messages of /device/v1: enrolment, check-in, offer, plan, report, receipt.
import {
  count, identifier, name, objectRef, positiveCount, sha256, timestamp,
} from "./common";
import { ANY_TIME, conditions } from "./conditions";
import { publicKey } from "./publicKey";
import {
  bool, checked, defaulted, list, nullable, object, oneOf, real, refuse, required, silent, text, type Of,
} from "./schema";
import { trainingSettings } from "./training";

/** A loss beyond it is as good as none. */
export const MAX_LOSS = 1e6;
/** Of an evaluation; more would say no more of a device. */
export const MAX_EXAMPLES = 1_000_000;
/** The manifest of each is read before a device plans. */
export const MAX_VARIANTS = 8;

export type { TrainingSettings } from "./training";

export const enrolRequest = object({
  population: required(name),
  enrolment_token: defaulted(nullable(text({ pattern: /^.+$/su, longest: 128 })), null),
  public_key: required(publicKey),
  name: defaulted(text({ longest: 128 }), ""),
});
export type EnrolRequest = Of<typeof enrolRequest>;

export const deviceStatus = object({
  device_id: required(identifier),
  state: required(oneOf("preauthorized", "pending", "accepted", "rejected", "suspended", "decommissioned")),
  retry_after_seconds: defaulted(real({ least: 0 }), 0),
});
export type DeviceStatus = Of<typeof deviceStatus>;

const word = text({ pattern: /^[a-z0-9_]{1,32}$/ });

/** What a device can do; what comes after the traffic is left out where it is unknown. */
export const capabilityReport = object({
  source: required(oneOf("measured", "given")),
  cores: required(positiveCount),
  memory_total_bytes: required(count),
  memory_available_bytes: required(count),
  matmul_flops_per_second: required(real({ above: 0 })),
  disk_free_bytes: required(count),
  traffic_bytes_per_round: defaulted(nullable(count), null),
  architecture: silent(nullable(word), null),
  accelerator: silent(nullable(word), null),
  network: silent(nullable(word), null),
  memory_bandwidth_bytes_per_second: silent(nullable(real({ above: 0 })), null),
  download_bytes_per_second: silent(nullable(real({ above: 0 })), null),
});
export type CapabilityReport = Of<typeof capabilityReport>;

export const checkIn = object({
  protocol_version: required(count),
  sdk_version: required(text({ longest: 32 })),
  population: required(name),
  capabilities: required(capabilityReport),
  example_count: required(count),
  held_out_count: silent(count, 0),
});
export type CheckIn = Of<typeof checkIn>;

/** Work for this device, if one of the ranks `min_rank` to `max_rank` fits it. */
export const offer = object({
  kind: silent(oneOf("train", "evaluate"), "train"),
  assignment_id: required(identifier),
  run_id: required(identifier),
  round_index: required(count),
  bundle: required(objectRef),
  variants: silent(list(objectRef, { longest: MAX_VARIANTS }), []),
  min_rank: required(positiveCount),
  max_rank: required(positiveCount),
  trained_rank: defaulted(nullable(positiveCount), null),
  round_seconds: required(real({ above: 0 })),
  training: required(trainingSettings),
  lease_expires_at: required(timestamp),
  conditions: silent(conditions, ANY_TIME),
});
export type Offer = Of<typeof offer>;

export const checkInAnswer = object({
  offer: required(nullable(offer)),
  retry_after_seconds: required(real({ least: 0 })),
  reason: required(text()),
});
export type CheckInAnswer = Of<typeof checkInAnswer>;

export const startRequest = object({
  rank: required(positiveCount),
  variant: silent(nullable(sha256), null),
});
export type StartRequest = Of<typeof startRequest>;

const uploadPrecision = oneOf("float32", "float16", "int8");
export type UploadPrecision = Of<typeof uploadPrecision>;

/** Which numbers of the adapter a device trains, and which it sends back; docs/protocol.md has the table. */
export const adaptation = checked(
  object({
    trained: defaulted(oneOf("both", "lora_A", "lora_B", "core"), "both"),
    private_lora_B: defaulted(bool, false),
    lora_B_rate: defaulted(real({ above: 0 }), 1),
    selected_ranks: defaulted(nullable(count), null),
    upload_density: defaulted(real({ above: 0, most: 1 }), 1),
    ranks: defaulted(nullable(list(count)), null),
    amplification: defaulted(real({ above: 0 }), 1),
    upload_precision: silent(uploadPrecision, "float32"),
    error_feedback: silent(bool, false),
  }),
  (told, place) => {
    const sendsPart = told.selected_ranks !== null || told.upload_density < 1;
    const faults: [boolean, string][] = [
      [told.ranks?.some((rank, at) => at > 0 && told.ranks![at - 1]! >= rank) ?? false, "ascending ranks"],
      [told.private_lora_B && told.trained !== "both", "a private lora_B beside lora_A"],
      [told.selected_ranks !== null && (told.private_lora_B || told.upload_density < 1), "whole ranks"],
      [told.trained === "core" && (sendsPart || told.upload_precision !== "float32"), "whole float32 cores"],
      [told.error_feedback && (sendsPart || told.upload_precision === "float32"), "rounded whole factors"],
    ];
    const fault = faults.find(([isThere]) => isThere);
    if (fault) refuse(place, "fields that do not fit together", fault[1]);
  },
);
export type Adaptation = Of<typeof adaptation>;

/** The whole adapter, as it is. */
export const PLAIN: Adaptation = adaptation.read({}, "");

export const plan = object({
  assignment_id: required(identifier),
  rank: required(positiveCount),
  adapter: required(objectRef),
  seed: required(count),
  lease_expires_at: required(timestamp),
  adaptation: defaulted(adaptation, PLAIN),
  frozen: defaulted(nullable(objectRef), null),
});
export type Plan = Of<typeof plan>;

const loss = nullable(real({ least: 0, most: MAX_LOSS }));

export const report = object({
  update: required(objectRef),
  rank: required(count),
  example_count: required(positiveCount),
  steps: required(positiveCount),
  first_loss: required(real()),
  last_loss: required(real()),
  training_seconds: required(real({ least: 0 })),
  peak_memory_bytes: required(count),
  downloaded_bytes: required(count),
  held_out_loss_before: silent(loss, null),
  held_out_loss_after: silent(loss, null),
});
export type Report = Of<typeof report>;

export const failure = object({
  code: required(text({ pattern: /^[a-z_]{1,64}$/ })),
  message: required(text({ longest: 1000 })),
});
export type Failure = Of<typeof failure>;

const ASSIGNMENT_STATES = [
  "offered", "downloading", "training", "uploading", "submitted",
  "accepted", "discarded", "failed", "expired", "aborted",
] as const;

export const receipt = object({
  assignment_id: required(identifier),
  state: required(oneOf(...ASSIGNMENT_STATES)),
  reason: required(text()),
  retry_after_seconds: required(real({ least: 0 })),
});
export type Receipt = Of<typeof receipt>;

export const evaluationReport = checked(
  object({
    example_count: required(positiveCount),
    loss: required(real({ least: 0, most: MAX_LOSS })),
    correct_count: defaulted(nullable(count), null),
  }),
  (told, place) => {
    if (told.example_count > MAX_EXAMPLES) refuse(place, told.example_count, `up to ${MAX_EXAMPLES} examples`);
    if ((told.correct_count ?? 0) > told.example_count) refuse(place, told.correct_count, "no more than examples");
  },
);
export type EvaluationReport = Of<typeof evaluationReport>;
