"""What a device refuses of a round with masks, so that no service has it lay itself or another open."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field

import pytest
from fake_bundle import SPEC, adapter_of
from fake_service import report_of
from hypothesis import given, settings
from hypothesis import strategies as st
from masked_fleet import OTHERS, TERMS

from edge_sdk.masking.cohort import SharedCohort, shared_cohort
from edge_sdk.masking.masked_update import HeldShares, Unmasked, held_shares, masked_update
from edge_sdk.masking.reveal import reveal_of
from hetlora.errors import MalformedMessage
from hetlora.masking.keys import MaskSecrets
from hetlora.messages.masking import MaskingStep, MaskingTask, MaskMember, least_threshold
from hetlora.tensors import adapter_to_bytes
from hetlora.testing.fake_cohort import FakeCohort

TENSORS = adapter_to_bytes(adapter_of(4))


@dataclass
class Told:
    """What a device of its own secrets is asked, by a service that follows the protocol."""

    secrets: MaskSecrets = field(default_factory=MaskSecrets.generate)
    fake: FakeCohort = field(default_factory=lambda: FakeCohort(TERMS, SPEC, OTHERS))

    def __post_init__(self) -> None:
        self.fake.waits = 0
        self.share = self._after(MaskingStep(step=self.secrets.public))
        self.cohort = shared_cohort(self.secrets, self.share)
        self.upload = self._after(MaskingStep(step=self.cohort.shares))
        self.fake.is_submitted = True
        self.reveal = self._after(MaskingStep(step=self.cohort.shares))

    @property
    def unmasked(self) -> Unmasked:
        return Unmasked(TENSORS, report_of(TENSORS), self.secrets)

    def masked(self, cohort: SharedCohort, task: MaskingTask) -> bytes:
        return masked_update(self.unmasked, TERMS, SPEC, cohort, task)

    def _after(self, step: MaskingStep) -> MaskingTask:
        return self.fake.answer(step.model_dump_json().encode())


@pytest.fixture
def told() -> Told:
    return Told()


def changed(task: MaskingTask, **fields: object) -> MaskingTask:
    return task.model_copy(update=fields)


def test_masked_file_is_the_same_for_the_same_secrets_cohort_and_sharers(told: Told) -> None:
    first, again = (told.masked(told.cohort, told.upload) for _ in range(2))
    assert first == again
    assert first != told.masked(told.cohort, changed(told.upload, sharers=(0, 1, 2, 3)))


def test_shares_that_are_made_again_are_others_and_so_they_are_kept(told: Told) -> None:
    assert shared_cohort(told.secrets, told.share).sealed != told.cohort.sealed


def test_cohort_of_two_is_refused(told: Told) -> None:
    with pytest.raises(MalformedMessage, match="cohort of a round"):
        shared_cohort(told.secrets, changed(told.share, members=told.share.members[:2], threshold=2))


@pytest.mark.parametrize("threshold", [None, 1, 3, 6])
def test_threshold_that_fewer_than_two_thirds_reach_or_nobody_is_refused(
    told: Told, threshold: int | None
) -> None:
    with pytest.raises(MalformedMessage, match=r"threshold .* expected 4 to 5 of 5"):
        shared_cohort(told.secrets, changed(told.share, threshold=threshold))


@given(st.integers(3, 256))
@settings(deadline=None)
def test_two_lists_of_those_who_reported_have_a_third_of_the_cohort_in_common(count: int) -> None:
    assert 2 * least_threshold(count) - count > count / 3
    assert least_threshold(count) <= count


@pytest.mark.parametrize("position", [None, 1, 5])
def test_place_that_is_not_of_the_own_keys_is_refused(told: Told, position: int | None) -> None:
    with pytest.raises(MalformedMessage, match="this device's place"):
        shared_cohort(told.secrets, changed(told.share, position=position))


def test_cohort_in_which_one_key_stands_twice_is_refused(told: Told) -> None:
    *others, last = told.share.members
    twin = last.model_copy(update={"mask_key": others[1].mask_key})
    with pytest.raises(MalformedMessage, match="stands twice"):
        shared_cohort(told.secrets, changed(told.share, members=(*others, twin)))


def test_key_that_agrees_with_anybody_is_refused(told: Told) -> None:
    *others, last = told.share.members
    weak = MaskMember(device=4, mask_key=last.mask_key, share_key=b64encode(bytes(32)).decode())
    with pytest.raises(MalformedMessage, match="small order"):
        shared_cohort(told.secrets, changed(told.share, members=(*others, weak)))


@pytest.mark.parametrize("sharers", [(), (0, 1, 2), (1, 2, 3, 4), (0, 1, 2, 3, 3), (0, 1, 2, 7)])
def test_sharers_that_are_too_few_or_strangers_are_refused(told: Told, sharers: tuple[int, ...]) -> None:
    with pytest.raises(MalformedMessage, match="who shared their secrets"):
        told.masked(told.cohort, changed(told.upload, sharers=sharers))


def test_sealed_shares_that_are_missing_or_anothers_are_refused(told: Told) -> None:
    *some, last = told.upload.sealed
    with pytest.raises(MalformedMessage, match=r"of 4 devices; expected of each of 5"):
        held_shares(told.secrets, told.cohort, changed(told.upload, sealed=tuple(some)))
    swapped = last.model_copy(update={"sealed": some[0].sealed})
    with pytest.raises(MalformedMessage, match="do not open"):
        held_shares(told.secrets, told.cohort, changed(told.upload, sealed=(*some, swapped)))


@given(st.sets(st.integers(0, 4)))
@settings(deadline=None)
def test_of_each_sharer_one_secret_is_revealed_or_nothing_at_all(reported: set[int]) -> None:
    held, task = HELD, changed(TOLD.reveal, reported=tuple(reported))
    if len(reported) < 4 or 0 not in reported:
        with pytest.raises(MalformedMessage, match="who reported"):
            reveal_of(held, task)
        return
    reveal = reveal_of(held, task).reveal
    assert {own.device for own in reveal.seeds} == reported
    assert {own.device for own in reveal.mask_keys} == {0, 1, 2, 3, 4} - reported


TOLD = Told()
HELD: HeldShares = held_shares(TOLD.secrets, TOLD.cohort, TOLD.upload)
