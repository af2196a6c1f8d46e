"""A thousand devices: a bad version is stopped at the canary with no hand on it, a good one reaches all."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import pytest
from fake_clock import FakeClock
from fake_device import CAPABILITIES, FakeDevice
from service_bundle import make_adapter
from service_operator import Operator

FLEET = 1000
STAGES = [
    {"share": 0.05, "least_reports": 20, "most_loss_increase": 0.1, "settle_seconds": 600},
    {"share": 0.3, "least_reports": 150, "most_loss_increase": 0.1, "settle_seconds": 600},
    {"share": 1.0, "least_reports": 500, "most_loss_increase": 0.1},
]


@dataclass
class AdoptingDevice:
    """A device that holds examples out; the loss of an adapter on them follows from its bytes."""

    line: FakeDevice
    losses: dict[str, float]
    in_use: str

    def visit(self) -> None:
        """One visit, to the receipt."""
        offer = self.line.check_in(example_count=0, abilities=["adopt"])["offer"]
        if offer is None:
            return
        assert offer["kind"] == "adopt"
        path = f"/adoptions/{offer['assignment_id']}"
        new = self.line.call("POST", f"{path}:start", {"rank": 2})["adapter"]["sha256"]
        report = {"adapter": new, "outcome": "adopted", "reason": "taken_back"}
        if not offer.get("takes_back"):
            scores = {"new_loss": self.losses[new], "former_loss": self.losses[self.in_use]}
            # It may be noise to one device: only the fleet's mean shows it.
            report |= {"reason": "not_worse", "example_count": 10, **scores}
        self.in_use = new
        assert self.line.call("POST", f"{path}:submit", report)["state"] == "accepted"


class Fleet:
    """Devices in the lab and elsewhere, who come in any order, and the operator who looks on."""

    def __init__(self, http: httpx.Client, operator: Operator, clock: FakeClock, token: str) -> None:
        self.operator, self._clock = operator, clock
        self.losses: dict[str, float] = {}
        lines = [FakeDevice(http, clock, seed).enrol(token) for seed in range(1, FLEET + 1)]
        self.devices = [AdoptingDevice(line, self.losses, "") for line in lines]

    def visited(self) -> Counter[str]:
        """What is in use after all have come, some minutes apart, and the worker has looked."""
        random.Random(0).shuffle(self.devices)
        for device in self.devices:
            device.visit()
        self._clock.advance(600)
        return Counter(device.in_use for device in self.devices)

    def rolled_out(self, version: str) -> str:
        body = {"version": version, "group": "modern", "settings": {"stages": STAGES}}
        rollout_id = str(self.operator.call("POST", "/rollouts", json=body)["rollout_id"])
        self.operator.call("POST", f"/rollouts/{rollout_id}:start")
        return rollout_id

    def reasons(self, subject: str, subject_id: str) -> Iterable[tuple[str, str]]:
        query = f"subject={subject}&subject_id={subject_id}"
        for row in self.operator.items(f"/transitions?{query}"):
            yield row["new"], row["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sqlite"], indirect=True)
def test_bad_version_is_stopped_at_the_canary_and_rolled_back_and_a_good_one_reaches_all(
    http: httpx.Client, operator: Operator, clock: FakeClock, enrolment_token: str, bundle: str
) -> None:
    fleet = Fleet(http, operator, clock, enrolment_token)
    run_id = operator.run(bundle, rounds=2)
    trainer = FakeDevice(http, clock, FLEET + 1).enrol(enrolment_token)
    for number in (1, 2):
        trainer.deliver(make_adapter(2, float(number)))
        operator.committed(run_id, number)
    good, bad, first = operator.items(f"/runs/{run_id}/adapters")
    fleet.losses |= {first["sha256"]: 1.0, bad["sha256"]: 1.5, good["sha256"]: 0.75}
    for device in fleet.devices:
        device.in_use = first["sha256"]
    condition = {"field": "cores", "comparison": "at_least", "value": CAPABILITIES["cores"]}
    group = {"population": "keyboard", "name": "modern", "filter": {"conditions": [condition]}}
    operator.call("POST", "/groups", json=group)

    # The bad one: the canary's devices find it worse, and nobody's hand is on what follows.
    rollout_id = fleet.rolled_out(bad["version"])
    in_use = fleet.visited()
    assert set(in_use) <= {first["sha256"], bad["sha256"]}
    assert 20 <= in_use[bad["sha256"]] <= 80  # about a twentieth of them
    ended = operator.wait_for(f"/rollouts/{rollout_id}", lambda found: found["state"] == "rolled_back")
    why = ended["reason"]
    assert why.startswith("stage 1 of 3: the loss on held-out examples rose by 0.5, mean of ")
    assert why.endswith(" devices, more than the 0.1 that it may")
    assert fleet.visited() == {first["sha256"]: FLEET}
    states = [state for state, _ in fleet.reasons("adapter_version", bad["version"])]
    assert states == ["candidate", "approved", "canary", "rolled_back"]
    asked = operator.call("GET", f"/rollouts/{rollout_id}")["counts"]
    assert asked["reverted"] == in_use[bad["sha256"]]
    assert asked["adopted"] == asked["recalled"] == 0
    one, *_ = operator.items(f"/rollouts/{rollout_id}/devices?limit=500&state=reverted")
    assert operator.items(f"/devices/{one['device_id']}/rollouts") == [one]
    history = [state for state, _ in fleet.reasons("rollout_device", one["ask_id"])]
    assert history == ["offered", "started", "adopted", "recalled", "reverted"]

    # The good one: stage by stage to all.
    rollout_id = fleet.rolled_out(good["version"])
    for number in (1, 2, 3):
        fleet.visited()
        done = operator.wait_for(
            f"/rollouts/{rollout_id}", lambda found, due=number: len(found["stages_decided"]) == due
        )
    assert done["state"] == "completed"
    assert [stage["outcome"] for stage in done["stages_decided"]] == ["moved_on", "moved_on", "completed"]
    assert {stage["loss_increase"] for stage in done["stages_decided"]} == {-0.25}
    assert Counter(device.in_use for device in fleet.devices) == {good["sha256"]: FLEET}
    # The trail tells the rest: who asked for what, and what the service did by itself and why.
    own = [entry["action"] for entry in operator.items("/audit?limit=500&key_id=service")]
    assert f"roll back: {why}" == own[-1]
    assert [action.split(":")[0] for action in reversed(own)] == [
        "roll back",
        "move on",
        "move on",
        "complete",
    ]
    actions = Counter(entry["action"] for entry in operator.items("/audit?limit=500"))
    assert actions["POST /management/v1/rollouts"] == 2
    assert actions["POST /management/v1/rollouts/{rollout_id}:{verb}"] == 2  # both of them starts
    told = list(fleet.reasons("rollout", rollout_id))
    assert [state for state, _ in told] == ["draft", "running", "running", "running", "completed"]
    assert all("loss changed by -0.25" in reason for _, reason in told[2:])
