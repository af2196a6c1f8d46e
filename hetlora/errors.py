"""Every error a user of hetlora can meet, each with a stable code; docs/protocol.md has all in one table.

Three families say whether to ask again: an InputError changes by nothing but another input, a RefusedError is
the service's no, and with an UnavailableError asking later, or elsewhere, may help.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, ClassVar, Final

MAX_QUOTED_CHARACTERS: Final = 500
MAX_FAULTS: Final = 5


class HetloraError(Exception):
    """Root of the tree: says what is wrong, what was got and what was expected."""

    code: ClassVar[str] = "error"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, got: object = None, expected: object = None) -> None:
        self.what = what
        self.got = None if got is None else _quoted(got)
        self.expected = None if expected is None else _quoted(expected)
        super().__init__(what)

    def __str__(self) -> str:
        parts = [self.what]
        if self.got is not None:
            parts.append(f"got {self.got}")
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        return "; ".join(parts)


def _quoted(value: object) -> str:
    """One short line: what is quoted may come from outside, and goes to logs, terminals and answers."""
    text = str(value)
    if len(text) > MAX_QUOTED_CHARACTERS:
        text = text[: MAX_QUOTED_CHARACTERS - 1] + "…"
    return "".join(character if character.isprintable() else " " for character in text)


class InputError(HetloraError):
    """What was handed in cannot be used; asking again changes nothing."""

    code = "invalid_input"
    status = 422
    exit_code = 3


class AdapterError(InputError):
    """An adapter that breaks its own rules."""

    code = "adapter_invalid"


class SpecMismatch(AdapterError):
    """Names or shapes differ from the adapter specification."""

    code = "spec_mismatch"


class RankOutOfRange(AdapterError):
    """A rank outside its limits."""

    code = "rank_out_of_range"


class NonFiniteValues(AdapterError):
    """NaN or infinity in a tensor, or factors of a norm above 1e15, alone or multiplied."""

    code = "non_finite_values"


class NoAdapter(AdapterError):
    """A device that keeps no such adapter."""

    code = "no_adapter"


class AdapterUnusable(AdapterError):
    """An adapter on a device that is damaged, or whose bundle is gone."""

    code = "adapter_unusable"


class WireError(InputError):
    """Bytes from elsewhere that are not what they claim to be."""

    code = "wire_invalid"


class MalformedTensors(WireError):
    """Bytes that are no safetensors file of the expected kind."""

    code = "malformed_tensors"


class MalformedMessage(WireError):
    """A message that its schema refuses."""

    code = "malformed_message"


class DigestMismatch(WireError):
    """Bytes that do not hash to the promised SHA-256."""

    code = "digest_mismatch"


class ChecksumMismatch(DigestMismatch):
    """A part of an upload that was damaged on its way."""

    code = "checksum_mismatch"
    status = 460  # tus's own


class BodyTooLarge(WireError):
    """More bytes than the limit allows."""

    code = "body_too_large"
    status = 413


class BundleError(InputError):
    """A bundle that cannot be used or made."""

    code = "bundle_error"


class BundleInvalid(BundleError):
    """A missing file, or a manifest that its schema refuses."""

    code = "bundle_invalid"


class VariantMismatch(BundleError):
    """A variant that differs from the bundle of its run in more than its cost."""

    code = "variant_mismatch"


class ModelNotExportable(BundleError):
    """A model, target or label set that cannot become a bundle."""

    code = "model_not_exportable"


class DataError(InputError):
    """Examples that cannot be read or used."""

    code = "data_unreadable"


class NoExamples(DataError):
    """A device that holds nothing to train on."""

    code = "no_examples"


class StoreDamaged(DataError):
    """An example store with bytes that are not what was written."""

    code = "store_damaged"


class SettingsError(InputError):
    """An option or environment value that cannot be used."""

    code = "settings_invalid"


class StoreKeyWrong(SettingsError):
    """A key that does not open the example store, or none where it wants one."""

    code = "store_key_wrong"


class RefusedError(HetloraError):
    """The service understood the request and says no."""

    code = "refused"
    status = 403
    exit_code = 4


class AuthenticationFailed(RefusedError):
    """No valid signature or token."""

    code = "authentication_failed"
    status = 401


class UnknownDevice(RefusedError):
    """A device that never enrolled."""

    code = "unknown_device"
    status = 401


class NotPermitted(RefusedError):
    """A known device or operator that may not do this."""

    code = "not_permitted"
    status = 403


class ProtocolUnsupported(RefusedError):
    """A version of the protocol that the service does not speak.

    `spoken` are the versions that it does, which travel as `protocol_versions` of the problem document.
    """

    code = "protocol_unsupported"
    status = 422

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, spoken: tuple[int, ...] = ()
    ) -> None:
        super().__init__(what, got=got, expected=expected)
        self.spoken = spoken


class NotFound(RefusedError):
    """No such object, run, round or assignment."""

    code = "not_found"
    status = 404


class StateConflict(RefusedError):
    """The thing exists, but its state does not allow this."""

    code = "state_conflict"
    status = 409


class OffsetMismatch(StateConflict):
    """A part that does not begin where its upload ends."""

    code = "offset_mismatch"


class PrivacyBudgetSpent(StateConflict):
    """A round that would tell more of a population than its privacy budget allows."""

    code = "privacy_budget_spent"


class UploadGone(RefusedError):
    """An upload that expired or was lost; another may be begun."""

    code = "upload_gone"
    status = 410


class IdempotencyKeyReused(RefusedError):
    """An idempotency key that came with another request before."""

    code = "idempotency_key_reused"
    status = 422


class UnavailableError(HetloraError):
    """Asking later, or elsewhere, may help.

    `retry_after_seconds`, where whoever was asked said when, travels as the header Retry-After (RFC 9110,
    section 10.2.3).
    """

    code = "unavailable"
    status = 503
    exit_code = 5

    def __init__(
        self,
        what: str,
        *,
        got: object = None,
        expected: object = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(what, got=got, expected=expected)
        self.retry_after_seconds = retry_after_seconds


class ServiceAway(UnavailableError):
    """The service is away, ill or busy, or a clock is wrong; what was done is kept for a later visit."""

    code = "service_away"


class ServiceUnreachable(ServiceAway):
    """No answer, or an answer that is no answer of ours."""

    code = "service_unreachable"


class TlsPinMismatch(ServiceUnreachable):
    """Whoever answers has none of the keys that this device insists on."""

    code = "tls_pin_mismatch"


class ServiceFailed(ServiceAway):
    """The service met a fault of its own."""

    code = "service_failed"
    status = 500


class TooManyRequests(ServiceAway):
    """More requests than the service takes in a minute, or more bodies at a time."""

    code = "too_many_requests"
    status = 429


class BodyTooSlow(ServiceAway):
    """A request's body that stood still, or crept."""

    code = "body_too_slow"
    status = 408


class ReplayedRequest(ServiceAway):
    """A signed request seen before."""

    code = "replayed_request"
    status = 401


class ClockSkew(ServiceAway):
    """A signature made too long ago, or in the future."""

    code = "clock_skew"
    status = 401


class PortInUse(UnavailableError):
    """The address to listen on is taken."""

    code = "port_in_use"


class DependencyMissing(UnavailableError):
    """An optional part of hetlora is not installed."""

    code = "dependency_missing"


class DeviceTooSmall(UnavailableError):
    """No rank within the limits fits this device."""

    code = "device_too_small"


class NoProgress(UnavailableError):
    """A training whose process ended several times before it came any further."""

    code = "no_progress"


class ConditionsUnmet(UnavailableError):
    """A device that may not work now: on its battery, in use, too hot."""

    code = "conditions_unmet"


class Stopped(ConditionsUnmet):
    """A visit that was asked to end; its assignment stays the device's."""

    code = "stopped"


class DiskFull(UnavailableError):
    """No disk space left to write to."""

    code = "disk_full"
    status = 507


class TrainingDiverged(UnavailableError):
    """The loss of local training is no longer a number."""

    code = "training_diverged"


def faults_in_words(faults: Iterable[Mapping[str, Any]]) -> str:
    """What a schema refused, in one line: the first `MAX_FAULTS` of pydantic's `ValidationError.errors()`.

    Of each fault the place (`loc`, empty for the whole message) and the reason (`msg`) are told, never the
    input, which may be a secret.
    """
    return "; ".join(
        ": ".join(filter(None, (".".join(map(str, fault["loc"])), fault["msg"])))
        for fault in islice(faults, MAX_FAULTS)
    )


def error_classes(root: type[HetloraError] = HetloraError) -> dict[str, type[HetloraError]]:
    """All error classes below `root` and `root` itself, by code."""
    found = {root.code: root}
    for child in root.__subclasses__():
        found |= error_classes(child)
    return found
