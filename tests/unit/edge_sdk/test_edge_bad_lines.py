"""Whole rounds of a real service over a line that breaks in every way, for hours of the clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import stamina
from certificates import Authority, TlsFront
from device_clock import Clock
from fake_bundle import bundle_on_disk, tiny_files, tiny_manifest
from fake_runtime import quadratic
from faulty_proxy import (
    ALL_FAULTS,
    WITHOUT_FLIPS,
    BadLine,
    Fault,
    FaultyProxy,
    Waiting,
    drawn_faults,
)
from real_service import TOKEN, real_service
from relay import address_of
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.session.visit import Visit
from edge_sdk.transport.tls import tls_context
from hetlora.bundle import Bundle
from hetlora.cli.operator import Operator
from hetlora.digest import sha256_of
from hetlora.manifest import MANIFEST_NAME
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import AssignmentState, RunState, is_final

ROUNDS = 3
BASE_BYTES = 100_000
TRAINING = TrainingSettings(steps=2, batch_size=2, learning_rate=0.5, max_tokens=8, pruning_decay=1.0)
HOUR = 3600.0
SEEDS = range(2)


@pytest.fixture(autouse=True)
def _eight_tries_without_waiting() -> Iterator[None]:
    with stamina.set_testing(True, attempts=8):
        yield


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """With weights that no connection of a bad line carries whole."""
    folder = tmp_path_factory.mktemp("bundle")
    bundle_on_disk(folder)
    weights = random.Random(0).randbytes(BASE_BYTES)
    (folder / "weights" / "base.bin").write_bytes(weights)
    manifest = tiny_manifest(tiny_files() | {"weights/base.bin": weights})
    (folder / MANIFEST_NAME).write_bytes(manifest.to_json())
    return Bundle(folder, manifest, sha256_of(manifest.to_json()))


@dataclass
class Stage:
    """A run of a real service, and what one device of it makes of a line."""

    service_url: str
    enrolment_token: str
    operator: Operator
    run_id: str
    clock: Clock
    folder: Path
    visits: list[Visit] = field(default_factory=list)

    def work(self, url: str, http: httpx.BaseTransport, **given: Any) -> Waiting:
        """Visit until the run is over; what was waited for comes back."""
        waiting = Waiting(self.clock, lambda: is_final(self.operator.run(self.run_id).state))
        with EdgeClient(
            url,
            "weather",
            self.folder,
            enrolment_token=self.enrolment_token,
            capabilities=STRONG,
            runtime=quadratic,
            upload_part_bytes=100,
            http=http,
            clock=self.clock,
            **given,
        ) as client:
            client.examples.put("snow and ice", "cold", key="first")
            client.run_forever(stop=waiting, on_visit=self.visits.append)
        return waiting

    def check(self) -> None:
        """Every round has one update, counted once, and nothing was given back or lost."""
        assert self.operator.run(self.run_id).state is RunState.COMPLETED
        assignments = list(self.operator.assignments(self.run_id))
        accepted = [status for status in assignments if status.state is AssignmentState.ACCEPTED]
        assert sorted(status.round_index for status in accepted) == list(range(ROUNDS))
        assert [status.aggregation_weight for status in accepted] == [1.0] * ROUNDS
        others = {status.state for status in assignments} - {AssignmentState.ACCEPTED}
        assert others <= {AssignmentState.EXPIRED}
        told = Counter(visit.outcome for visit in self.visits)
        assert told["failed"] == 0
        assert told["accepted"] <= ROUNDS  # an answer that is lost is asked for again, and is the same


@pytest.fixture
def stage(tmp_path: Path, bundle: Bundle) -> Iterator[Stage]:
    clock = Clock()
    with real_service(tmp_path / "data", clock) as url, Operator(url, TOKEN) as operator:
        token = operator.create_population("weather").enrolment_token
        operator.publish_bundle(bundle)
        settings = RunSettings(
            rounds=ROUNDS, goal_count=1, over_selection=1.0, max_rank=4, training=TRAINING, lease_seconds=HOUR
        )
        run = operator.create_run(RunCreate(population="weather", bundle=bundle.digest, settings=settings))
        operator.move_run(run.run_id, "start")
        yield Stage(url, token, operator, run.run_id, clock, tmp_path / "device")


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_end_accepted_once_over_plain_http(stage: Stage, seed: int) -> None:
    chance = random.Random(seed)
    faults = drawn_faults(chance, WITHOUT_FLIPS, share=0.7)
    with FaultyProxy(address_of(stage.service_url), faults) as proxy:
        stage.work(proxy.url, BadLine(chance, share=0.05))
    stage.check()
    assert proxy.connections > 10
    assert len(proxy.met) > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_rounds_end_accepted_once_over_tls_whatever_bits_are_flipped(
    stage: Stage, authority: Authority, seed: int
) -> None:
    chance = random.Random(seed)
    faults = drawn_faults(chance, ALL_FAULTS, share=0.7)
    with (
        TlsFront(stage.service_url, *authority.issue("service")) as front,
        FaultyProxy(("127.0.0.1", front.port), faults) as proxy,
    ):
        line = BadLine(chance, share=0.05, verify=tls_context(authority.ca_file, [front.pin]))
        stage.work(f"https://127.0.0.1:{proxy.port}", line)
    stage.check()
    assert proxy.connections > 10
    assert len(proxy.met) > 5


def test_line_that_is_cut_every_20_kilobytes_brings_100_of_them_little_more_than_once(stage: Stage) -> None:
    def cuts() -> Iterator[Fault]:
        while True:
            yield Fault("cut down", 20_000)

    with FaultyProxy(address_of(stage.service_url), cuts()) as proxy:
        stage.work(proxy.url, httpx.HTTPTransport())
    stage.check()
    assert BASE_BYTES < proxy.down_bytes < 2 * BASE_BYTES


def test_bit_that_flips_in_an_object_over_plain_http_costs_that_object_once_more(stage: Stage) -> None:
    def flips() -> Iterator[Fault]:
        while proxy.down_bytes < 50_000:  # the connection that brings the weights, whichever it is
            yield Fault("flipped down", 50_000)
        while True:
            yield Fault("slow", 10**9)

    with FaultyProxy(address_of(stage.service_url), flips()) as proxy:
        stage.work(proxy.url, httpx.HTTPTransport())
    stage.check()
    assert 2 * BASE_BYTES < proxy.down_bytes < 3 * BASE_BYTES


class FlippingUpdates(httpx.HTTPTransport):
    """A way on which each second part of an update comes with one bit flipped."""

    parts = flipped = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH":
            self.parts += 1
            if self.parts % 2:
                self.flipped += 1
                body = request.content[:-1] + bytes([request.content[-1] ^ 16])
                request = httpx.Request("PATCH", request.url, headers=request.headers, content=body)
        return super().handle_request(request)


def test_bit_that_flips_in_an_update_costs_that_part_once_more(stage: Stage) -> None:
    way = FlippingUpdates()
    stage.work(stage.service_url, way)
    stage.check()
    assert way.flipped >= 3 * ROUNDS
    assert way.parts == 2 * way.flipped


@pytest.mark.slow
def test_hours_without_network_cost_time_and_nothing_else(stage: Stage) -> None:
    away_until = [0.0]
    stamina.set_testing(True, attempts=2)
    faults = drawn_faults(random.Random(1), WITHOUT_FLIPS, share=0.3)
    with FaultyProxy(address_of(stage.service_url), faults, lambda: stage.clock.now < away_until[0]) as proxy:

        class Gone(BadLine):
            """The network goes as soon as the first update is in, and is away until the evening."""

            def handle_request(self, request: httpx.Request) -> httpx.Response:
                if not away_until[0] and request.url.path.endswith(":submit"):
                    away_until[0] = stage.clock.now + 8 * HOUR
                return super().handle_request(request)

        waiting = stage.work(proxy.url, Gone(random.Random(1), share=0.0))
    stage.check()
    assert len(waiting.waits) > 100
    assert max(waiting.waits) <= 300.0
