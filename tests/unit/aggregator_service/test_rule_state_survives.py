"""SIGKILL of a service whose rule keeps more than an adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from rule_twin import published, reduced
from service_operator import Operator
from service_process import now, process

from aggregator_service.aggregation.rules import first_state
from aggregator_service.service import TOKEN_FILE
from hetlora.adapter import initial_adapter
from hetlora.messages.management import RunSettings

# Fed-SB keeps its cores and its frozen factors as tensors, Adam its moments: two kinds of state.
SETTINGS = RunSettings.model_validate(
    {
        "rounds": 3,
        "goal_count": 2,
        "over_selection": 1.0,
        "max_rank": RANK,
        "rule": "fed_sb",
        "server_optimizer": {"name": "adam"},
    }
)


@pytest.mark.slow
def test_killed_service_goes_on_with_the_tensors_of_its_rule(tmp_path: Path) -> None:
    state = first_state(SETTINGS.rule, initial_adapter(SPEC, RANK, np.random.default_rng(SETTINGS.seed)))
    token = run_id = enrolment_token = ""
    for index in range(SETTINGS.rounds):
        with process(tmp_path) as (running, http):
            token = token or (tmp_path / TOKEN_FILE).read_text().strip()
            operator = Operator(http, token)
            enrolment_token = enrolment_token or operator.population()
            run_id = run_id or operator.run(operator.publish(SPEC), **SETTINGS.model_dump(mode="json"))
            if index:
                operator.committed(run_id, index)  # what the killed one left is brought on first
            devices = [FakeDevice(http, now, seed).enrol(enrolment_token) for seed in (1, 2)]
            works = [
                work(device, rank, 10 * index + rank) for device, rank in zip(devices, (2, 4), strict=True)
            ]
            state = reduced(SETTINGS, state, works)
            running.kill()  # before, in or after the commit
            running.wait()
    with process(tmp_path) as (_, http):
        operator = Operator(http, token)
        run = operator.committed(run_id, SETTINGS.rounds)
        content = operator.published(run["adapter_version"])
    assert content == published(SETTINGS, state)
