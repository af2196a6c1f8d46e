"""A rollout of the service itself to devices of the SDK: adopted, found worse, and taken back."""

from __future__ import annotations

import time
from pathlib import Path

from bundle_variants import variant_on_disk, weighing, with_room_for
from device_clock import Clock
from fake_runtime import quadratic
from real_service import TOKEN, real_service

from edge_sdk.client import EdgeClient
from hetlora.cli.operator import Operator
from hetlora.messages.device import TrainingSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.messages.rollouts import RolloutCreate, RolloutStatus
from hetlora.states import RolloutState, RunState

TRAINING = TrainingSettings(
    steps=10, batch_size=1, learning_rate=0.1, max_tokens=8, pruning_decay=1.0, pruning_penalty=0
)
NAMES = ("one", "two", "three")


def visit(url: str, token: str, folder: Path, clock: Clock) -> EdgeClient:
    """A device after one visit; what it learns makes "cold" likelier, and it holds a "warm" one out."""
    with EdgeClient(
        url,
        "weather",
        folder,
        enrolment_token=token,
        capabilities=with_room_for(640),
        runtime=quadratic,
        clock=clock,
    ) as client:
        client.examples.put("snow and ice", "cold", key="first")
        client.held_out.put("sun and sand", "warm", key="other")
        assert client.run_once().outcome == "accepted"
        return client


def wait_for(operator: Operator, rollout_id: str, state: RolloutState) -> RolloutStatus:
    while (found := operator.rollouts.one(rollout_id)).state is not state:  # the test's time limit ends this
        time.sleep(0.02)
    return found


def test_version_that_is_worse_on_what_devices_hold_out_is_taken_back(tmp_path: Path) -> None:
    clock = Clock()
    bundle = variant_on_disk(tmp_path / "bundle", weighing(400))
    settings = RunSettings(rounds=1, goal_count=1, over_selection=1.0, max_rank=4, training=TRAINING)
    with real_service(tmp_path / "data", clock) as url, Operator(url, TOKEN) as operator:
        token = operator.create_population("weather").enrolment_token
        operator.publish_bundle(bundle)
        run = operator.create_run(RunCreate(population="weather", bundle=bundle.digest, settings=settings))
        operator.move_run(run.run_id, "start")
        visit(url, token, tmp_path / "trainer", clock)
        while operator.run(run.run_id).state is not RunState.COMPLETED:
            time.sleep(0.02)
        version, first = operator.adapters(run.run_id)
        stage = {"share": 1.0, "least_reports": 3, "most_loss_increase": 0.0}
        made = operator.rollouts.create(
            RolloutCreate.model_validate({"version": version.version, "settings": {"stages": [stage]}})
        )
        operator.rollouts.move(made.rollout_id, "start")

        for name in NAMES:
            client = visit(url, token, tmp_path / name, clock)
            current = client.adapters.current()
            assert current is not None
            assert (current.kind, current.round_index, current.rank) == ("rollout", 0, 4)
        ended = wait_for(operator, made.rollout_id, RolloutState.ROLLED_BACK)
        assert ended.reason.startswith("stage 1 of 1: the loss on held-out examples rose by ")
        assert (ended.stages_decided[0].compared, ended.former) == (3, first.version)

        for name in NAMES:
            client = visit(url, token, tmp_path / name, clock)
            back = client.adapters.current()
            assert back is not None
            lora_B = client.adapters.read(back)[1].adapter.factors["query"].lora_B
            assert not lora_B.any()  # the one that the run began with
        assert operator.rollouts.one(made.rollout_id).counts.reverted == 3
