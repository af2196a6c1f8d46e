"""What a virtual device does from event to event: check in, plan, fetch, train, deliver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

from aggregator_service.assignments import assignments
from aggregator_service.assignments.evaluation_offers import check_in_to_train_or_evaluate
from aggregator_service.assignments.updates import keep_update, terms_of
from aggregator_service.devices.identity import note_contact
from aggregator_service.service import Service
from benchmarks.simulation.draws import WORK, draw, generator
from benchmarks.simulation.fleet_file import Spread
from benchmarks.simulation.sessions import Session
from benchmarks.simulation.staging import POPULATION
from benchmarks.simulation.updates import Updates
from benchmarks.simulation.virtual_clock import VirtualClock
from benchmarks.simulation.virtual_device import VirtualDevice
from edge_sdk.planning.planner import Planner, RankChoice
from hetlora.bundle import Bundle
from hetlora.digest import sha256_of
from hetlora.errors import HetloraError, RefusedError, TrainingDiverged
from hetlora.messages.common import PROTOCOL_VERSION
from hetlora.messages.device import CheckIn, Failure, Offer, Plan, Receipt, Report

SDK_VERSION: Final = "simulated"
RUNTIME: Final = "onnx"  # whose files a device fetches

StageName = Literal["fetch", "train", "deliver"]


@dataclass(slots=True)
class Stage:
    """A part of the work, and the seconds that it takes still."""

    name: StageName
    seconds: float


@dataclass(slots=True)
class Work:
    """An assignment under way; `lost_in` is the stage from which the device does not come back."""

    offer: Offer
    choice: RankChoice
    plan: Plan
    stages: list[Stage]
    lost_in: StageName | None
    downloaded_bytes: int


class Visits:
    """Brings virtual devices through their sessions; the service takes what they tell as from any others."""

    def __init__(
        self, service: Service, clock: VirtualClock, bundle: Bundle, seed: int, updates: Updates
    ) -> None:
        self._service, self._clock, self._bundle = service, clock, bundle
        self._seed, self._updates = seed, updates
        files = bundle.manifest.files
        self._bundle_bytes = sum(files[name].size_bytes for name in bundle.manifest.files_of(RUNTIME))
        self._work: dict[int, Work] = {}

    def live(self, device: VirtualDevice, sessions: Iterator[Session]) -> None:
        """Have the next session of a device happen, and then those after it."""
        coming = next(sessions)
        self._clock.at(coming.start, partial(self._open, device, coming, sessions))

    def _open(self, device: VirtualDevice, session: Session, sessions: Iterator[Session]) -> None:
        device.session_end = session.end
        self.live(device, sessions)
        self._visit_at(device, device.not_before)

    def _visit_at(self, device: VirtualDevice, seconds: float) -> None:
        if seconds < device.session_end:
            self._clock.at(seconds, partial(self._visit, device))

    def _visit(self, device: VirtualDevice) -> None:
        device.check_ins += 1
        with self._service.database.note() as connection:
            device.contact_at = note_contact(self._service, connection, device.id, device.contact_at)
        asked = CheckIn(
            protocol_version=PROTOCOL_VERSION,
            sdk_version=SDK_VERSION,
            population=POPULATION,
            capabilities=device.machine.capabilities,
            example_count=device.machine.example_count,
        )
        answer = check_in_to_train_or_evaluate(self._service, device.id, asked)
        work = self._work.pop(device.number, None)
        if work is not None and (
            answer.offer is None or answer.offer.assignment_id != work.plan.assignment_id
        ):
            self._end(device, "lease ran out")
            work = None
        if answer.offer is None:
            self._stay_away(device, answer.retry_after_seconds)
        elif work is not None:
            self._go_on(device, work)
        else:
            self._take(device, answer.offer)

    def _stay_away(self, device: VirtualDevice, seconds: float) -> None:
        device.not_before = self._clock.seconds + seconds
        self._visit_at(device, device.not_before)

    def _take(self, device: VirtualDevice, offer: Offer) -> None:
        machine = device.machine
        missing = 0 if device.has_bundle else self._bundle_bytes
        planner = Planner(
            machine.capabilities, self._bundle.manifest, offer, machine.example_count, bundle_bytes=missing
        )
        try:
            choice = planner.choose()
            plan = assignments.start(self._service, device.id, offer.assignment_id, choice.rank)
        except HetloraError as error:
            self._give_back(device, offer.assignment_id, error)
            return
        self._go_on(device, self._planned(device, offer, choice, plan, missing))

    def _planned(
        self, device: VirtualDevice, offer: Offer, choice: RankChoice, plan: Plan, missing: int
    ) -> Work:
        rng = generator(self._seed, WORK, device.number, device.trainings)
        device.trainings += 1
        frozen = 0 if plan.frozen is None else plan.frozen.size_bytes
        down = missing + plan.adapter.size_bytes + frozen
        slower = draw(rng, Spread(median=1, spread=device.kind.step_seconds_spread))
        stages = [
            Stage("fetch", down / device.machine.download_bytes_per_second),
            Stage("train", min(choice.forecast.seconds * slower, offer.round_seconds)),
            Stage("deliver", choice.forecast.upload_bytes / device.machine.upload_bytes_per_second),
        ]
        is_lost = float(rng.random()) < device.kind.dropout
        return Work(offer, choice, plan, stages, "train" if is_lost else None, down)

    def _go_on(self, device: VirtualDevice, work: Work) -> None:
        """To the end of the stage, or of the session: what is left of it is done in the next."""
        stage = work.stages[0]
        left = device.session_end - self._clock.seconds
        if stage.seconds > left:
            stage.seconds -= left
            self._work[device.number] = work
        else:
            self._clock.after(stage.seconds, partial(self._finish, device, work))

    def _finish(self, device: VirtualDevice, work: Work) -> None:
        stage = work.stages.pop(0)
        if stage.name == work.lost_in:
            self._end(device, "dropped out")
            device.session_end = self._clock.seconds
            return
        try:
            if stage.name == "fetch":
                device.has_bundle = True
                device.downloaded_bytes += work.downloaded_bytes
                assignments.note_fetch(self._service, device.id, work.plan.adapter.sha256)
                if work.lost_in is None:
                    self._updates.begin(device.number, work.plan, work.choice.forecast.steps)
            elif stage.name == "deliver":
                self._deliver(device, work)
                return
        except RefusedError as error:  # the round is over, or the lease
            self._end(device, error.code)
            self._visit_at(device, self._clock.seconds)
            return
        self._go_on(device, work)

    def _deliver(self, device: VirtualDevice, work: Work) -> None:
        assignment_id = work.plan.assignment_id
        try:
            made = self._updates.result(device.number, work.plan)
        except TrainingDiverged as error:
            self._give_back(device, assignment_id, error)
            return
        terms = terms_of(self._service, device.id, assignment_id, sha256_of(made.data))
        with terms.folder.receive() as blob:
            blob.write(made.data)
            ref = keep_update(self._service, terms, blob)
        forecast = work.choice.forecast
        report = Report(
            update=ref,
            rank=made.rank,
            example_count=device.machine.example_count,
            steps=forecast.steps,
            first_loss=made.first_loss,
            last_loss=made.last_loss,
            training_seconds=forecast.seconds,
            peak_memory_bytes=forecast.peak_bytes,
            downloaded_bytes=work.downloaded_bytes,
        )
        receipt = assignments.submit(self._service, device.id, assignment_id, report)
        self._end(device, receipt.state)
        self._told(device, receipt)

    def _give_back(self, device: VirtualDevice, assignment_id: str, error: HetloraError) -> None:
        self._end(device, error.code)
        failure = Failure(code=error.code, message=error.what)
        self._told(device, assignments.fail(self._service, device.id, assignment_id, failure))

    def _end(self, device: VirtualDevice, outcome: str) -> None:
        device.outcomes[outcome] += 1
        self._updates.drop(device.number)

    def _told(self, device: VirtualDevice, receipt: Receipt) -> None:
        self._stay_away(device, receipt.retry_after_seconds)
