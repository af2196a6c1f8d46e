package dev.hetlora.errors

/**
 * Every code of docs/protocol.md. Families say whether to ask again: [INVALID_INPUT] changes by nothing but
 * another input, [REFUSED] is the service's no, and with [UNAVAILABLE] asking later may help.
 *
 * @property code as it travels.
 * @property parent the family that it belongs to; null for the root alone.
 */
enum class ErrorCode(val code: String, val parent: ErrorCode?) {
    ERROR("error", null),

    INVALID_INPUT("invalid_input", ERROR),
    ADAPTER_INVALID("adapter_invalid", INVALID_INPUT),
    SPEC_MISMATCH("spec_mismatch", ADAPTER_INVALID),
    RANK_OUT_OF_RANGE("rank_out_of_range", ADAPTER_INVALID),
    NON_FINITE_VALUES("non_finite_values", ADAPTER_INVALID),
    NO_ADAPTER("no_adapter", ADAPTER_INVALID),
    ADAPTER_UNUSABLE("adapter_unusable", ADAPTER_INVALID),
    WIRE_INVALID("wire_invalid", INVALID_INPUT),
    MALFORMED_TENSORS("malformed_tensors", WIRE_INVALID),
    MALFORMED_MESSAGE("malformed_message", WIRE_INVALID),
    DIGEST_MISMATCH("digest_mismatch", WIRE_INVALID),
    CHECKSUM_MISMATCH("checksum_mismatch", DIGEST_MISMATCH),
    BODY_TOO_LARGE("body_too_large", WIRE_INVALID),
    BUNDLE_ERROR("bundle_error", INVALID_INPUT),
    BUNDLE_INVALID("bundle_invalid", BUNDLE_ERROR),
    VARIANT_MISMATCH("variant_mismatch", BUNDLE_ERROR),
    MODEL_NOT_EXPORTABLE("model_not_exportable", BUNDLE_ERROR),
    DATA_UNREADABLE("data_unreadable", INVALID_INPUT),
    NO_EXAMPLES("no_examples", DATA_UNREADABLE),
    STORE_DAMAGED("store_damaged", DATA_UNREADABLE),
    SETTINGS_INVALID("settings_invalid", INVALID_INPUT),
    STORE_KEY_WRONG("store_key_wrong", SETTINGS_INVALID),

    REFUSED("refused", ERROR),
    AUTHENTICATION_FAILED("authentication_failed", REFUSED),
    UNKNOWN_DEVICE("unknown_device", REFUSED),
    NOT_PERMITTED("not_permitted", REFUSED),
    PROTOCOL_UNSUPPORTED("protocol_unsupported", REFUSED),
    NOT_FOUND("not_found", REFUSED),
    STATE_CONFLICT("state_conflict", REFUSED),
    OFFSET_MISMATCH("offset_mismatch", STATE_CONFLICT),
    PRIVACY_BUDGET_SPENT("privacy_budget_spent", STATE_CONFLICT),
    UPLOAD_GONE("upload_gone", REFUSED),
    IDEMPOTENCY_KEY_REUSED("idempotency_key_reused", REFUSED),

    UNAVAILABLE("unavailable", ERROR),
    SERVICE_AWAY("service_away", UNAVAILABLE),
    SERVICE_UNREACHABLE("service_unreachable", SERVICE_AWAY),
    TLS_PIN_MISMATCH("tls_pin_mismatch", SERVICE_UNREACHABLE),
    SERVICE_FAILED("service_failed", SERVICE_AWAY),
    TOO_MANY_REQUESTS("too_many_requests", SERVICE_AWAY),
    BODY_TOO_SLOW("body_too_slow", SERVICE_AWAY),
    REPLAYED_REQUEST("replayed_request", SERVICE_AWAY),
    CLOCK_SKEW("clock_skew", SERVICE_AWAY),
    PORT_IN_USE("port_in_use", UNAVAILABLE),
    DEPENDENCY_MISSING("dependency_missing", UNAVAILABLE),
    DEVICE_TOO_SMALL("device_too_small", UNAVAILABLE),
    NO_PROGRESS("no_progress", UNAVAILABLE),
    CONDITIONS_UNMET("conditions_unmet", UNAVAILABLE),
    STOPPED("stopped", CONDITIONS_UNMET),
    DISK_FULL("disk_full", UNAVAILABLE),
    TRAINING_DIVERGED("training_diverged", UNAVAILABLE);

    /** Whether this is that code, or one of its family. */
    fun isA(family: ErrorCode): Boolean = this == family || (parent?.isA(family) ?: false)

    companion object {
        private val byCode = values().associateBy { it.code }

        /** The code of this name, or null for one that this version does not know. */
        fun of(code: String): ErrorCode? = byCode[code]
    }
}
