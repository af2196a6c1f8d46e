"""Every rule with real devices: what a plan asks for is what the service takes back."""

from __future__ import annotations

from typing import Any

import pytest
from e2e_fleet import TinyFleet

from aggregator_service.aggregation.rules import RULES
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunStatus
from hetlora.states import AssignmentState, RunState

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 3
# A penalty so heavy that modules prune themselves, each for itself.
PRUNING = TrainingSettings(
    steps=3,
    batch_size=4,
    max_tokens=16,
    learning_rate=1e-2,
    pruning_decay=0.5,
    pruning_penalty=1000.0,
    prune_by="module",
)
SETTINGS: dict[str, dict[str, Any]] = {
    **{kind().name: {"rule": kind().name} for kind in RULES},
    "fedloru": {"rule": {"name": "fedloru", "every_rounds": 2}},
    "deer": {"rule": "deer", "min_rank": 8},
    "residual_exact": {"rule": {"name": "residual_exact", "fold": True, "allocate": True}},
    "rbla": {"rule": "rbla", "defence": {"method": "geometric_median", "clip": True}},
    "flexlora": {"rule": "flexlora", "server_optimizer": {"name": "adam"}},
    "hetlora": {"rule": "hetlora", "training": PRUNING},
}


def test_devices_of_unequal_ranks_complete_runs_of_every_rule(fleet: TinyFleet) -> None:
    devices = [fleet.device(f"rank-{rank}", fleet.for_rank(rank)) for rank in (2, 8)]
    told = {}
    for name, settings in SETTINGS.items():
        if name == "deer":
            devices.append(fleet.device("another-8", fleet.for_rank(8)))  # one that can take the only rank
        run = fleet.start_run(**{"rounds": ROUNDS, "over_selection": 1.5, **settings})
        told[name] = outcome(fleet, fleet.finished(run))
    assert told == dict.fromkeys(SETTINGS, (RunState.COMPLETED, ROUNDS, set()))


def outcome(fleet: TinyFleet, run: RunStatus) -> tuple[RunState, int, set[str]]:
    """How a run ended, and why devices gave work of it back other than for its rank."""
    back = fleet.in_state(run, AssignmentState.FAILED, AssignmentState.EXPIRED)
    reasons = {status.reason for status in back if not status.reason.startswith("device_too_small")}
    return run.state, run.rounds_committed, reasons
