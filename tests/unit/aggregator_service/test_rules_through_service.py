"""Every rule from the run's first offer to its last commit, beside the same rule without a service."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from fake_device import FakeDevice
from fake_training import RANK, SPEC, work
from rule_twin import published, reduced
from service_operator import Operator

from aggregator_service.aggregation.rules import RULES, first_state
from hetlora.adapter import initial_adapter
from hetlora.digest import sha256_of
from hetlora.messages.management import RunSettings

MakeDevice = Callable[[int], FakeDevice]
ROUNDS = 3
NAMES = [kind().name for kind in RULES]
# Forms of updates, with and without error feedback.
INT8, FLOAT16 = ({"upload_precision": precision} for precision in ("int8", "float16"))
ROUNDED = ["hetlora", "rolora", "fedsa", "lora_a2", "flasc", "fslora", "residual_exact"]
STEPPED = ["zero_pad", "flexlora", "fed_sb", "rolora", "residual_exact"]


@pytest.mark.parametrize(
    "chosen",
    [
        *(pytest.param({"rule": name}, id=name) for name in NAMES),
        *(pytest.param({"rule": n, "server_optimizer": {"name": "adam"}}, id=f"{n} adam") for n in STEPPED),
        pytest.param({"rule": "hetlora", "server_optimizer": {"name": "momentum"}}, id="hetlora momentum"),
        *(pytest.param({"rule": n, "training": INT8}, id=f"{n} int8") for n in ROUNDED),
        pytest.param({"rule": "hetlora", "training": FLOAT16}, id="hetlora float16"),
        pytest.param({"rule": {"name": "fedloru", "every_rounds": 2}}, id="fedloru restarts"),
        pytest.param({"rule": {"name": "residual_exact", "fold": True, "allocate": True}}, id="folded"),
    ],
)
def test_run_gives_what_its_rule_gives(
    operator: Operator, make_device: MakeDevice, chosen: dict[str, object]
) -> None:
    settings = RunSettings.model_validate(
        {"rounds": ROUNDS, "goal_count": 3, "over_selection": 1.0, "max_rank": RANK, "seed": 5, **chosen}
    )
    ranks = [1, 2, RANK] if settings.rule.name != "deer" else [RANK] * 3
    run_id = operator.run(
        operator.publish(SPEC), **settings.model_dump(mode="json") | {"min_rank": min(ranks)}
    )
    devices = [make_device(number) for number in (1, 2, 3)]
    state = first_state(settings.rule, initial_adapter(SPEC, RANK, np.random.default_rng(5)))
    for index in range(ROUNDS):
        works = [work(device, rank, 10 * index + rank) for device, rank in zip(devices, ranks, strict=True)]
        run = operator.committed(run_id, index + 1)
        state = reduced(settings, state, works)
        assert operator.published(run["adapter_version"]) == published(settings, state)
    assert run["state"] == "completed"
    newest = operator.items(f"/runs/{run_id}/adapters")[0]
    _, frozen = published(settings, state)
    assert (newest["frozen"] or {}).get("sha256") == (frozen and sha256_of(frozen))
    assert newest["figures"] == pytest.approx(dict(state.figures))
    weights = [item["aggregation_weight"] for item in operator.items(f"/runs/{run_id}/assignments")]
    assert sum(weights) == pytest.approx(ROUNDS)
