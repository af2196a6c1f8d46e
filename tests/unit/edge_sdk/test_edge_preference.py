"""Which of the bundles that a device can afford it prefers."""

from __future__ import annotations

import pytest
from fake_service import FakeService
from plain_costs import MANIFEST, step_of
from strong_device import STRONG

from edge_sdk.planning.planner import Planner, RankChoice
from edge_sdk.planning.preference import is_unsurpassed, preferred


def choice(rank: int, max_tokens: int = 64) -> RankChoice:
    offer = FakeService().offer
    assert offer is not None
    forecast = Planner(STRONG, MANIFEST, offer, example_count=1).choose().forecast
    return RankChoice(rank, "offer", forecast, step_of(rank), max_tokens)


@pytest.mark.parametrize(
    ("choices", "place"),
    [
        ([choice(4)], 0),
        ([choice(4), choice(8), choice(8)], 1),
        ([choice(8), choice(8)], 0),
        ([choice(8, max_tokens=32), choice(2), choice(4, max_tokens=32)], 1),
        ([None, choice(1), None], 1),
        ([None, None], None),
        ([], None),
    ],
)
def test_longest_texts_come_before_the_highest_rank_and_this_before_the_order(
    choices: list[RankChoice | None], place: int | None
) -> None:
    assert preferred(choices) == place


@pytest.mark.parametrize(
    ("rank", "tokens", "most"), [(32, 8, True), (31, 8, False), (32, 7, False), (32, 9, True)]
)
def test_highest_rank_of_the_run_with_whole_texts_is_not_surpassed(
    rank: int, tokens: int, most: bool
) -> None:
    offer = FakeService().offer
    assert offer is not None  # of texts of 8 tokens
    offer = offer.model_copy(update={"max_rank": 40})  # and the bundle has 32
    assert is_unsurpassed(choice(rank, tokens), offer, MANIFEST) is most
