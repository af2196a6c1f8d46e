"""`hetlora serve` with an engine that is not its own process."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from rule_twin import published, reduced
from service_operator import Operator
from service_process import now, process

from aggregator_service.aggregation.rules import first_state
from aggregator_service.service import TOKEN_FILE, open_service
from aggregator_service.settings import Settings
from hetlora.adapter import initial_adapter
from hetlora.errors import SettingsError
from hetlora.messages.management import RunSettings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed"),
]
SETTINGS = RunSettings.model_validate(
    {"rounds": 2, "goal_count": 3, "over_selection": 1.0, "max_rank": RANK, "rule": "flexlora"}
)


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_service_aggregates_on_ray_and_leaves_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: signal.Signals
) -> None:
    monkeypatch.setenv("HETLORA_AGGREGATION_WORKERS", "2")
    state = first_state(SETTINGS.rule, initial_adapter(SPEC, RANK, np.random.default_rng(SETTINGS.seed)))
    with process(tmp_path, "--engine", "ray") as (running, http):
        operator = Operator(http, (tmp_path / TOKEN_FILE).read_text().strip())
        token = operator.population()
        run_id = operator.run(operator.publish(SPEC), **SETTINGS.model_dump(mode="json"))
        devices = [FakeDevice(http, now, seed).enrol(token) for seed in (1, 2, 3)]
        for index in range(SETTINGS.rounds):
            works = [
                work(device, rank, index + rank) for device, rank in zip(devices, (1, 2, 4), strict=True)
            ]
            state = reduced(SETTINGS, state, works)
            run = operator.wait_for(
                f"/runs/{run_id}", lambda run, done=index: run["rounds_committed"] > done, seconds=60
            )
        content = operator.published(run["adapter_version"])
        children = psutil.Process(running.pid).children(recursive=True)
        # Ray's agents look for their parent only now and then: they outlive it by a minute or two.
        workers = [own for own in children if not own.name().endswith("Agent")]
        http.close()
        running.send_signal(end)
        running.wait(timeout=30)
    assert content == published(SETTINGS, state)
    assert workers
    wait_until_gone(workers)


def wait_until_gone(processes: Sequence[psutil.Process]) -> None:
    deadline = time.monotonic() + 30
    while any(own.is_running() and own.status() != psutil.STATUS_ZOMBIE for own in processes):
        assert time.monotonic() < deadline, [own for own in processes if own.is_running()]
        time.sleep(0.1)


def test_service_does_not_start_where_no_cluster_answers(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no Ray cluster answers"):
        open_service(Settings(data_dir=tmp_path, engine="ray", ray_address="127.0.0.1:1"))
    open_service(Settings(data_dir=tmp_path)).close()  # nothing of it is held
