"""Which of the bundles that a device can afford it prefers."""

from __future__ import annotations

import pytest
from fake_service import FakeService
from plain_costs import MANIFEST, step_of
from strong_device import STRONG

from edge_sdk.planning.planner import Planner, RankChoice
from edge_sdk.planning.preference import Plan, is_unsurpassed, preferred
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.manifest import Manifest


def choice(rank: int, max_tokens: int = 64) -> RankChoice:
    offer = FakeService().offer
    assert offer is not None
    forecast = Planner(STRONG, MANIFEST, offer, example_count=1).choose().forecast
    return RankChoice(rank, "offer", forecast, step_of(rank), max_tokens)


FOUR_MODULES = AdapterSpec(tuple(ModuleSpec(name, 64, 64) for name in "abcd"), scaling=1.0, max_rank=32)
ALL = MANIFEST.model_copy(update={"adapter": FOUR_MODULES})
HALF = ALL.model_copy(update={"untrained": ("a", "b")})


@pytest.mark.parametrize(
    ("plans", "place"),
    [
        ([(ALL, choice(4))], 0),
        ([(ALL, choice(4)), (ALL, choice(8)), (ALL, choice(8))], 1),
        ([(ALL, choice(8)), (ALL, choice(8))], 0),
        ([(ALL, choice(8, max_tokens=32)), (ALL, choice(2)), (ALL, choice(4, max_tokens=32))], 1),
        ([(ALL, None), (ALL, choice(1)), (ALL, None)], 1),
        # Ranks are counted in all that trains: 4 x 2 of one are 2 x 4 of the other.
        ([(ALL, choice(2)), (HALF, choice(4))], 0),
        ([(ALL, choice(2)), (HALF, choice(5))], 1),
        # Graphs stamped for longer texts than are asked train on none.
        ([(ALL, choice(8)), (ALL, choice(4, max_tokens=512))], 0),
        ([(ALL, None)], None),
        ([], None),
    ],
)
def test_longest_texts_come_before_the_most_ranks_and_these_before_the_order(
    plans: list[Plan], place: int | None
) -> None:
    assert preferred(plans, 64) == place


@pytest.mark.parametrize(
    ("manifest", "rank", "tokens", "most"),
    [
        (ALL, 32, 8, True),
        (ALL, 31, 8, False),
        (ALL, 32, 7, False),
        (ALL, 32, 9, True),
        (HALF, 32, 8, False),
    ],
)
def test_highest_rank_of_all_modules_with_whole_texts_is_not_surpassed(
    manifest: Manifest, rank: int, tokens: int, most: bool
) -> None:
    offer = FakeService().offer
    assert offer is not None  # of texts of 8 tokens
    offer = offer.model_copy(update={"max_rank": 40})  # and the bundle has 32
    assert is_unsurpassed(manifest, choice(rank, tokens), offer) is most
