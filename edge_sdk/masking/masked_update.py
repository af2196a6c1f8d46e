"""From a trained update to the vector that is sent: weighted, padded, in whole numbers, under masks."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass

from edge_sdk.masking.cohort import SharedCohort
from hetlora.adapter import AdapterSpec
from hetlora.errors import MalformedMessage, RankOutOfRange, SpecMismatch
from hetlora.masking.keys import MaskSecrets, OpenedShares, opened_shares
from hetlora.masking.masks import masked
from hetlora.masking.quantising import Quantiser
from hetlora.masking.vector import joint_vector, weight_of
from hetlora.masking.wire import masked_to_bytes
from hetlora.messages.common import Message, PositiveCount
from hetlora.messages.device import Adaptation, Report
from hetlora.messages.masking import MaskingTask, MaskingTerms, Position, Share
from hetlora.tensors import adapter_from_bytes


@dataclass(frozen=True, slots=True)
class Unmasked:
    """A trained update as safetensors bytes, its report, and the secrets that are for it alone."""

    tensors: bytes
    report: Report
    secrets: MaskSecrets


class HeldShare(Message):
    """Shares of one device's secrets, opened; one of the two is revealed at most."""

    device: Position
    mask_key: Share
    seed: Share


class HeldShares(Message):
    """What a device holds of those who shared, itself among them, once its vector is masked."""

    position: Position
    threshold: PositiveCount
    held: tuple[HeldShare, ...]

    @property
    def sharers(self) -> set[int]:
        """Whose they are."""
        return {own.device for own in self.held}

    def opened(self) -> dict[int, OpenedShares]:
        """By position."""
        return {own.device: OpenedShares(b64decode(own.mask_key), b64decode(own.seed)) for own in self.held}


def check_terms(terms: MaskingTerms, spec: AdapterSpec, offered_rank: int, adaptation: Adaptation) -> None:
    """Look, before training, whether what comes of it can be masked as the offer asks.

    Raises:
        RankOutOfRange: updates of the offer may be wider than the vector, or that than the model's adapters.
        SpecMismatch: what the plan has the device send is no whole adapter in float32.
    """
    if not offered_rank <= terms.rank <= spec.max_rank:
        raise RankOutOfRange(
            "rank of the vector that is masked", got=terms.rank, expected=f"{offered_rank} to {spec.max_rank}"
        )
    if adaptation != Adaptation():
        raise SpecMismatch(
            "what is masked", got=adaptation.model_dump(exclude_defaults=True), expected="whole adapters"
        )


def masked_update(
    unmasked: Unmasked, terms: MaskingTerms, spec: AdapterSpec, cohort: SharedCohort, task: MaskingTask
) -> bytes:
    """The file that is sent; the same for the same arguments.

    Raises:
        MalformedMessage: the task's sharers are not of the cohort, fewer than its threshold, or without this
            device.
        MalformedTensors, SpecMismatch, RankOutOfRange, NonFiniteValues: the update is none of `spec`.
    """
    _check_sharers(task, cohort)
    adapter = adapter_from_bytes(unmasked.tensors, spec)
    weight = weight_of(terms.weighing, adapter, unmasked.report.example_count)
    quantiser = Quantiser(terms.largest, len(cohort.members))
    encoded = quantiser.encode(joint_vector(adapter, terms.rank, weight))  # of floats nothing stays in memory
    members, position = cohort.members, cohort.position
    return masked_to_bytes(masked(encoded, unmasked.secrets, position, members, task.sharers))


def held_shares(secrets: MaskSecrets, cohort: SharedCohort, task: MaskingTask) -> HeldShares:
    """What each sharer sealed for this device, opened.

    Raises:
        MalformedMessage: it is not of each sharer exactly, or does not open.
    """
    if sorted(own.device for own in task.sealed) != sorted(task.sharers):
        raise MalformedMessage(
            "sealed shares", got=f"of {len(task.sealed)} devices", expected=f"of each of {len(task.sharers)}"
        )
    opened = opened_shares(secrets, cohort.position, cohort.members, task.sealed)
    return HeldShares(
        position=cohort.position,
        threshold=cohort.threshold,
        held=tuple(
            HeldShare(
                device=device,
                mask_key=b64encode(shares.mask_key).decode(),
                seed=b64encode(shares.seed).decode(),
            )
            for device, shares in sorted(opened.items())
        ),
    )


def _check_sharers(task: MaskingTask, cohort: SharedCohort) -> None:
    sharers = set(task.sharers)
    known = len(sharers) == len(task.sharers) and sharers <= {own.device for own in cohort.members}
    if not known or cohort.position not in sharers or len(sharers) < cohort.threshold:
        raise MalformedMessage(
            "who shared their secrets",
            got=f"positions {[*task.sharers][:8]}",
            expected=f"{cohort.threshold} or more of the cohort, this device among them",
        )
