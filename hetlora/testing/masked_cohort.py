"""Devices of a round with masks that have told their keys and shared their secrets, without a service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from hetlora.masking.keys import MaskSecrets, opened_shares, revealed, sealed_shares
from hetlora.masking.masks import masked, recovered, unmask
from hetlora.masking.quantising import Masked
from hetlora.messages.masking import MaskMember, MaskReveal, SealedShares


@dataclass(frozen=True)
class MaskedCohort:
    """A cohort whose devices are at positions 0, 1, 2, ..."""

    secrets: Sequence[MaskSecrets]
    members: Sequence[MaskMember]
    threshold: int
    sealed: Sequence[Sequence[SealedShares]]

    @classmethod
    def of(cls, count: int, threshold: int) -> Self:
        """So many devices with new secrets."""
        secrets = [MaskSecrets.generate() for _ in range(count)]
        members = [
            MaskMember(device=at, mask_key=own.public.mask_key, share_key=own.public.share_key)
            for at, own in enumerate(secrets)
        ]
        sealed = [sealed_shares(own, at, members, threshold) for at, own in enumerate(secrets)]
        return cls(secrets, members, threshold, sealed)

    def inbox(self, device: int, sharers: Sequence[int]) -> list[SealedShares]:
        """What those who shared sealed for a device."""
        return [SealedShares(device=by, sealed=self.sealed[by][device].sealed) for by in sharers]

    def reveal(self, device: int, sharers: Sequence[int], reported: Sequence[int]) -> MaskReveal:
        """What a device tells, once it knows whose vectors are in."""
        opened = opened_shares(self.secrets[device], device, self.members, self.inbox(device, sharers))
        return revealed(opened, sharers, reported)

    def masked(self, device: int, vector: Masked, sharers: Sequence[int]) -> Masked:
        """A device's vector under its masks."""
        return masked(vector, self.secrets[device], device, self.members, sharers)


def unmasked(cohort: MaskedCohort, total: Masked, reveals: Mapping[int, MaskReveal]) -> Masked:
    """A sum with all masks taken off."""
    result = total.copy()
    unmask(result, cohort.members, *recovered(reveals, cohort.members, cohort.threshold))
    return result
