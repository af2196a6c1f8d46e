"""The others of a round with masks, and the service that goes between them and the one that is tested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from hetlora.adapter import Adapter, AdapterSpec
from hetlora.errors import StateConflict
from hetlora.masking.keys import MaskSecrets, opened_shares, revealed, sealed_shares
from hetlora.masking.masks import masked, recovered, unmask
from hetlora.masking.quantising import Masked, Quantiser
from hetlora.masking.vector import joint_vector, mean_of, size_of, weight_of
from hetlora.masking.wire import read_masked
from hetlora.messages.masking import (
    MaskingStep,
    MaskingTask,
    MaskingTerms,
    MaskKeys,
    MaskMember,
    MaskReveal,
    MaskShares,
    SealedShares,
    least_threshold,
)

DEVICE: Final = 0  # the position of the device that is tested


class FakeCohort:
    """Devices with these updates, of one example each, of which the last `gone` share and do not report.

    Attributes:
        keys, shares, reveal: what the device told of each step, the first time.
        steps: the name of each step that it took, as it came.
        script: taken one a step, before it is looked at: told instead of what is next, unless None.
        waits: how often it is told to wait before each new thing to do.
    """

    def __init__(
        self, terms: MaskingTerms, spec: AdapterSpec, others: Sequence[Adapter], *, gone: int = 0
    ) -> None:
        self.terms, self.spec, self.others = terms, spec, tuple(others)
        self.count = len(self.others) + 1
        self.threshold = least_threshold(self.count)
        self.reported: tuple[int, ...] = tuple(range(self.count - gone))
        self.secrets = {at: MaskSecrets.generate() for at in range(1, self.count)}
        self.members: tuple[MaskMember, ...] = ()
        self.keys: MaskKeys | None = None
        self.shares: MaskShares | None = None
        self.reveal: MaskReveal | None = None
        self.vector: Masked | None = None
        self.is_submitted = False
        self.steps: list[str] = []
        self.script: list[MaskingTask | None] = []
        self.waits = 1
        self._waited: dict[str, int] = {}
        self._sealed: dict[int, tuple[SealedShares, ...]] = {}

    def answer(self, body: bytes) -> MaskingTask:
        """What the device is to do after a step."""
        step = MaskingStep.model_validate_json(body).step
        self.steps.append(step.step)
        match step:
            case MaskKeys():
                self._take_keys(step)
            case MaskShares():
                self.shares = self.shares or step
            case MaskReveal():
                self.reveal = self.reveal or step
            case _:
                pass
        scripted = self.script.pop(0) if self.script else None
        return self._waiting(self._task()) if scripted is None else scripted

    def take(self, update: bytes) -> None:
        """The device's masked vector, as it was uploaded."""
        self.vector = read_masked(update, size_of(self.spec, self.terms.rank))

    def mean(self) -> Adapter | None:
        """What the round comes to: the mean of those that are in, by what all but the last reveal."""
        assert self.vector is not None
        assert self.reveal is not None
        total = self.vector.copy()
        sharers, reveals = [*range(self.count)], {DEVICE: self.reveal}
        for at in self.reported[1:]:
            total += masked(self._encoded(at), self.secrets[at], at, self.members, sharers)
            opened = opened_shares(self.secrets[at], at, self.members, self._inbox(at))
            reveals[at] = revealed(opened, sharers, self.reported)
        used = dict(list(reveals.items())[: self.threshold])
        unmask(total, self.members, *recovered(used, self.members, self.threshold))
        return mean_of(self._quantiser.decode(total), self.spec, self.terms.rank)

    @property
    def _quantiser(self) -> Quantiser:
        return Quantiser(self.terms.largest, self.count)

    def _encoded(self, at: int) -> Masked:
        adapter = self.others[at - 1]
        vector = joint_vector(adapter, self.terms.rank, weight_of(self.terms.weighing, adapter, 1))
        return np.asarray(self._quantiser.encode(vector))

    def _take_keys(self, keys: MaskKeys) -> None:
        if self.keys is not None:
            if self.keys != keys:
                raise StateConflict("other keys than this device's first")
            return
        self.keys = keys
        told = {DEVICE: keys} | {at: own.public for at, own in self.secrets.items()}
        self.members = tuple(
            MaskMember(device=at, mask_key=own.mask_key, share_key=own.share_key) for at, own in told.items()
        )
        self._sealed = {
            at: sealed_shares(own, at, self.members, self.threshold) for at, own in self.secrets.items()
        }

    def _inbox(self, recipient: int) -> tuple[SealedShares, ...]:
        assert self.shares is not None
        sent = {DEVICE: self.shares.sealed} | self._sealed
        return tuple(
            SealedShares(device=by, sealed=own.sealed)
            for by, boxes in sent.items()
            for own in boxes
            if own.device == recipient
        )

    def _task(self) -> MaskingTask:
        if self.keys is None:
            raise StateConflict("this device has told no keys")
        if self.reveal is not None:
            return MaskingTask(todo="over", reason="revealed", retry_after_seconds=0)
        cohort = {"position": DEVICE, "threshold": self.threshold, "members": self.members}
        base = MaskingTask(todo="share", reason="so it is", retry_after_seconds=0).model_copy(update=cohort)
        if self.shares is None:
            return base
        shared = base.model_copy(
            update={"sharers": tuple(range(self.count)), "sealed": self._inbox(DEVICE), "todo": "upload"}
        )
        if not self.is_submitted:
            return shared
        return shared.model_copy(update={"todo": "reveal", "reported": self.reported})

    def _waiting(self, task: MaskingTask) -> MaskingTask:
        waited = self._waited.get(task.todo, 0)
        if task.todo == "over" or waited >= self.waits:
            return task
        self._waited[task.todo] = waited + 1
        return MaskingTask(todo="wait", reason=f"others {task.todo}", retry_after_seconds=0)
