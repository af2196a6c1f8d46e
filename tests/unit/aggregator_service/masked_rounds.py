"""Devices of a round with masks, without HTTP and without a worker."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from fake_device import REPORT
from service_bundle import SPEC
from service_verbs import CHECK_IN, add_device, started_run
from sqlalchemy import select

from aggregator_service.assignments.assignments import start, submit
from aggregator_service.assignments.masking import take_step
from aggregator_service.assignments.offers import check_in
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.service import Service
from aggregator_service.storage.tables import RoundRow
from hetlora.adapter import Adapter, LoraFactors
from hetlora.digest import sha256_of
from hetlora.masking.keys import MaskSecrets, opened_shares, revealed, sealed_shares
from hetlora.masking.masks import masked
from hetlora.masking.quantising import Quantiser
from hetlora.masking.vector import joint_vector, weight_of
from hetlora.masking.wire import masked_to_bytes
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Offer, Receipt, Report
from hetlora.messages.masking import (
    MASK,
    MaskingStep,
    MaskingTask,
    MaskPoll,
    MaskReveal,
    MaskShares,
)

ABLE = CHECK_IN.model_copy(update={"abilities": (MASK,)})


def update(seed: int, rank: int) -> Adapter:
    rng = np.random.default_rng(seed)
    factors = {
        module.name: LoraFactors(
            rng.standard_normal((rank, module.in_features), np.float32),
            rng.standard_normal((module.out_features, rank), np.float32),
        )
        for module in SPEC.modules
    }
    return Adapter(SPEC, factors)


def masked_run(service: Service, bundle: str, **settings: object) -> str:
    """A running run of five devices a round, with masks."""
    return started_run(
        service,
        bundle,
        **{"goal_count": 5, "over_selection": 1.4, "secure_aggregation": {}} | settings,
    )


@dataclass
class MaskedDevice:
    """A device that has trained: it tells its keys when it is made."""

    service: Service
    number: int
    secrets: MaskSecrets = field(default_factory=MaskSecrets.generate)

    def __post_init__(self) -> None:
        self.device_id = add_device(self.service, f"device-{self.number}")
        self.begin()

    def begin(self) -> None:
        """Take an offer; ranks are 1 and 2 in turn."""
        offer = check_in(self.service, self.device_id, ABLE).offer
        assert offer is not None
        self.take(offer)

    def take(self, offer: Offer) -> None:
        assert offer.masking is not None
        self.masking, self.assignment_id = offer.masking, offer.assignment_id
        self.rank = 1 + self.number % 2
        start(self.service, self.device_id, offer.assignment_id, self.rank)
        self.update, self.example_count = update(self.number, self.rank), 10 * (self.number + 1)

    def step(self, step: object) -> MaskingTask:
        message = MaskingStep.model_validate({"step": step})
        return take_step(self.service, self.device_id, self.assignment_id, message)

    def poll(self) -> MaskingTask:
        return self.step(MaskPoll())

    def tell_keys(self) -> MaskingTask:
        return self.step(self.secrets.public)

    def share(self) -> MaskingTask:
        return self.step(self.shares(self.poll()))

    def shares(self, task: MaskingTask) -> MaskShares:
        assert (task.todo, task.position is None, task.threshold is None) == ("share", False, False)
        position, threshold = task.position or 0, task.threshold or 0
        return MaskShares(sealed=sealed_shares(self.secrets, position, task.members, threshold))

    def masked_update(self, task: MaskingTask) -> bytes:
        """What the device sends in place of its update, as an `upload` asks."""
        weight = weight_of(self.masking.weighing, self.update, self.example_count)
        vector = joint_vector(self.update, self.masking.rank, weight)
        encoded = Quantiser(self.masking.largest, len(task.members)).encode(vector)
        return masked_to_bytes(masked(encoded, self.secrets, task.position or 0, task.members, task.sharers))

    def send(self) -> Receipt:
        task = self.poll()
        assert task.todo == "upload", task
        data = self.masked_update(task)
        self.upload(data)
        return self.submit(data)

    def upload(self, data: bytes) -> None:
        terms = terms_of(self.service, self.device_id, self.assignment_id, sha256_of(data))
        with terms.folder.receive() as blob:
            blob.write(data)
            keep_update(self.service, terms, blob)

    def submit(self, data: bytes, rank: int | None = None) -> Receipt:
        told = REPORT | {"rank": self.rank if rank is None else rank, "example_count": self.example_count}
        ref = ObjectRef(sha256=sha256_of(data), size_bytes=len(data))
        report = Report.model_validate(told | {"update": ref})
        return submit(self.service, self.device_id, self.assignment_id, report)

    def reveals(self, task: MaskingTask) -> MaskReveal:
        assert task.todo == "reveal", task
        opened = opened_shares(self.secrets, task.position or 0, task.members, task.sealed)
        return revealed(opened, task.sharers, task.reported)

    def reveal(self) -> MaskingTask:
        """Reveal, unless enough others did before."""
        task = self.poll()
        return task if task.todo == "over" else self.step(self.reveals(task))


def cohort(service: Service, count: int = 5) -> list[MaskedDevice]:
    """Devices that have told their keys."""
    devices = [MaskedDevice(service, number) for number in range(count)]
    for own in devices:
        own.tell_keys()
    return devices


def rounds_of(service: Service, run_id: str) -> list[tuple[int, str, str]]:
    """Attempt, state and reason of each round."""
    with service.database.read() as session:
        rounds = session.scalars(select(RoundRow).where(RoundRow.run_id == run_id).order_by(RoundRow.id))
        return [(own.attempt, own.state.value, own.reason) for own in rounds]
