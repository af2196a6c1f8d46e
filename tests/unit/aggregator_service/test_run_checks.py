"""Settings with which no round could commit or move are refused when a run is created."""

from __future__ import annotations

from typing import Any

import pytest
from fake_training import RANK, SPEC
from service_operator import Operator
from service_server import problem


def refused(operator: Operator, **settings: Any) -> Any:
    chosen = {"goal_count": 5, "max_rank": RANK, **settings}
    body = {"population": "keyboard", "bundle": operator.publish(SPEC), "settings": chosen}
    answer = operator.send("POST", "/runs", json=body)
    assert problem(answer) == (422, "settings_invalid")
    return answer.json()


def test_goal_beyond_what_the_defence_compares_is_refused(operator: Operator) -> None:
    told = refused(operator, goal_count=11, defence={"method": "krum", "max_updates": 10})
    assert told["expected"] == "up to max_updates, 10"


@pytest.mark.parametrize(
    ("goal_count", "defence", "kept"),
    [
        (5, {"quorum": 6}, "5 of goal_count 5"),
        (5, {"method": "krum", "quorum": 2}, "1 of goal_count 5"),
        # 5 - floor(0.2 * 5) - 2 = 2
        (5, {"method": "multi_krum", "quorum": 3}, "2 of goal_count 5"),
        (2, {"method": "median"}, "2 of goal_count 2"),
        (2, {"method": "trimmed_mean"}, "2 of goal_count 2"),
    ],
)
def test_defence_that_leaves_too_few_owners_is_refused(
    operator: Operator, goal_count: int, defence: dict[str, Any], kept: str
) -> None:
    assert refused(operator, goal_count=goal_count, defence=defence)["got"] == kept


def test_quorum_of_a_rule_that_no_round_reaches_is_refused(operator: Operator) -> None:
    assert refused(operator, rule={"name": "rbla", "quorum": 6})["expected"] == "6 or more"


@pytest.mark.parametrize("method", ["krum", "multi_krum", "geometric_median"])
def test_defence_by_products_is_refused_where_one_factor_stays_on_devices(
    operator: Operator, method: str
) -> None:
    assert refused(operator, rule="fedsa", defence={"method": method})["got"] == method


@pytest.mark.parametrize(
    ("goal_count", "minimum_share", "hostile_share", "size"),
    [
        (5, 1.0, 0.4, 5),  # f = 2, and 5 <= 2 x 2 + 2
        (10, 1.0, 0.4, 10),  # f = 4, and 10 <= 2 x 4 + 2
        (9, 0.6, 0.35, 6),  # of 6 and more: f = 2, and 6 <= 2 x 2 + 2
    ],
)
def test_rounds_in_which_those_who_collude_would_win_are_refused(
    operator: Operator, goal_count: int, minimum_share: float, hostile_share: float, size: int
) -> None:
    defence = {"method": "krum", "hostile_share": hostile_share}
    told = refused(operator, goal_count=goal_count, minimum_share=minimum_share, defence=defence)
    assert told["detail"].startswith(f"a round of {size} updates is too small for krum")


@pytest.mark.parametrize("defence", [{"quorum": 2}, {"method": "median"}, {"method": "trimmed_mean"}])
def test_owners_of_ranks_are_not_counted_where_cores_of_several_ranks_are_trained(
    operator: Operator, defence: dict[str, Any]
) -> None:
    assert refused(operator, rule="fed_sb", defence=defence)["got"] == "ranks 1 to 4"


@pytest.mark.parametrize("rule", ["hetlora", "zero_pad", "flexlora", "lora_a2", "fed_sb", "fedex", "fedsa"])
def test_rule_over_what_came_instead_of_changes_is_refused_in_a_buffered_run(
    operator: Operator, rule: str
) -> None:
    told = refused(operator, mode="buffered", rule=rule)
    assert told["got"] == rule
    assert told["expected"] == "flasc, flora, fslora, residual_exact; or the mode synchronous"


def test_defence_that_compares_all_must_have_room_for_the_largest_round_of_a_buffered_run(
    operator: Operator,
) -> None:
    defence = {"method": "geometric_median", "max_updates": 10}
    settings = {"goal_count": 4, "rule": "residual_exact", "defence": defence}
    assert operator.run(operator.publish(SPEC), start=False, **settings)
    # 4 + ceil(4 * 1.3) + ceil(4 * 0.5) = 12
    assert refused(operator, mode="buffered", **settings)["got"] == "12"


def test_largest_staleness_does_nothing_in_a_synchronous_run(operator: Operator) -> None:
    settings = {"goal_count": 1, "max_rank": RANK, "max_staleness": 3}
    body = {"population": "keyboard", "bundle": operator.publish(SPEC), "settings": settings}
    assert problem(operator.send("POST", "/runs", json=body)) == (422, "malformed_message")


@pytest.mark.parametrize("rule", ["lora_a2", "fed_sb", "flasc"])
def test_self_pruning_of_devices_that_send_no_whole_ranks_is_refused(operator: Operator, rule: str) -> None:
    assert refused(operator, rule=rule, training={"pruning_decay": 0.9})["got"] == "pruning_decay 0.9"


@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_cores_in_fewer_bytes_are_refused(operator: Operator, precision: str) -> None:
    assert refused(operator, rule="fed_sb", training={"upload_precision": precision})["got"] == precision


def test_constants_that_do_not_fit_the_rank_of_the_run_are_refused(operator: Operator) -> None:
    assert refused(operator, rule={"name": "raflora", "levels": [1, 8]})["expected"] == "up to 4"
    assert refused(operator, rule={"name": "residual_exact", "state_rank": 3})["expected"] == "4 or more"


@pytest.mark.parametrize(
    ("chosen", "got"),
    [
        ({"goal_count": 4, "screens": {}}, "up to 4 updates"),
        ({"goal_count": 11, "screens": {"max_updates": 10}}, 11),
        ({"rule": "fedsa", "screens": {"direction": 3}}, "direction 3"),
    ],
)
def test_screens_that_could_never_judge_are_refused(
    operator: Operator, chosen: dict[str, Any], got: object
) -> None:
    assert refused(operator, **chosen)["got"] == str(got)
