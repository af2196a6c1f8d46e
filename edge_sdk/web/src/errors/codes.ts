// The codes of docs/protocol.md that a device can meet; each with the family that says whether to ask again.

interface Code {
  /** The more general error that this one is of. */
  parent?: ErrorCode;
  /** The status of HTTP under which a service tells it. */
  status: number;
}

export const CODES = {
  error: { status: 500 },
  invalid_input: { parent: "error", status: 422 },
  adapter_invalid: { parent: "invalid_input", status: 422 },
  spec_mismatch: { parent: "adapter_invalid", status: 422 },
  rank_out_of_range: { parent: "adapter_invalid", status: 422 },
  non_finite_values: { parent: "adapter_invalid", status: 422 },
  no_adapter: { parent: "adapter_invalid", status: 422 },
  adapter_unusable: { parent: "adapter_invalid", status: 422 },
  wire_invalid: { parent: "invalid_input", status: 422 },
  malformed_tensors: { parent: "wire_invalid", status: 422 },
  malformed_message: { parent: "wire_invalid", status: 422 },
  digest_mismatch: { parent: "wire_invalid", status: 422 },
  checksum_mismatch: { parent: "digest_mismatch", status: 460 },
  body_too_large: { parent: "wire_invalid", status: 413 },
  bundle_error: { parent: "invalid_input", status: 422 },
  bundle_invalid: { parent: "bundle_error", status: 422 },
  variant_mismatch: { parent: "bundle_error", status: 422 },
  model_not_exportable: { parent: "bundle_error", status: 422 },
  data_unreadable: { parent: "invalid_input", status: 422 },
  no_examples: { parent: "data_unreadable", status: 422 },
  store_damaged: { parent: "data_unreadable", status: 422 },
  settings_invalid: { parent: "invalid_input", status: 422 },
  store_key_wrong: { parent: "settings_invalid", status: 422 },
  refused: { parent: "error", status: 403 },
  authentication_failed: { parent: "refused", status: 401 },
  unknown_device: { parent: "refused", status: 401 },
  not_permitted: { parent: "refused", status: 403 },
  protocol_unsupported: { parent: "refused", status: 422 },
  not_found: { parent: "refused", status: 404 },
  state_conflict: { parent: "refused", status: 409 },
  offset_mismatch: { parent: "state_conflict", status: 409 },
  privacy_budget_spent: { parent: "state_conflict", status: 409 },
  upload_gone: { parent: "refused", status: 410 },
  idempotency_key_reused: { parent: "refused", status: 422 },
  unavailable: { parent: "error", status: 503 },
  service_away: { parent: "unavailable", status: 503 },
  service_unreachable: { parent: "service_away", status: 503 },
  tls_pin_mismatch: { parent: "service_unreachable", status: 503 },
  service_failed: { parent: "service_away", status: 500 },
  too_many_requests: { parent: "service_away", status: 429 },
  body_too_slow: { parent: "service_away", status: 408 },
  replayed_request: { parent: "service_away", status: 401 },
  clock_skew: { parent: "service_away", status: 401 },
  port_in_use: { parent: "unavailable", status: 503 },
  dependency_missing: { parent: "unavailable", status: 503 },
  device_too_small: { parent: "unavailable", status: 503 },
  no_progress: { parent: "unavailable", status: 503 },
  conditions_unmet: { parent: "unavailable", status: 503 },
  stopped: { parent: "conditions_unmet", status: 503 },
  disk_full: { parent: "unavailable", status: 507 },
  training_diverged: { parent: "unavailable", status: 503 },
} satisfies Record<string, { parent?: string; status: number }>;

export type ErrorCode = keyof typeof CODES;

/** Whether this is a code that this client knows. */
export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(CODES, code);
}

/** Whether an error of one code is one of another, more general one. */
export function isOf(code: ErrorCode, general: ErrorCode): boolean {
  for (let own: ErrorCode | undefined = code; own !== undefined; own = (CODES[own] as Code).parent) {
    if (own === general) return true;
  }
  return false;
}
