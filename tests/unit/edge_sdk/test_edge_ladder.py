"""The sizes that a device chooses from."""

from __future__ import annotations

import pytest

from edge_sdk.planning.ladder import ladder, lengths, rows_at_a_time
from hetlora.errors import RankOutOfRange


def test_rows_at_a_time_are_the_fewest_rows_of_each_number_of_parts() -> None:
    assert rows_at_a_time(16) == [16, 8, 6, 4, 3, 2, 1]
    assert rows_at_a_time(1) == [1]


def test_lengths_are_halves_down_to_the_least() -> None:
    assert lengths(64, 10) == [64, 32, 16, 10]
    assert lengths(64, 16) == [64, 32, 16]
    assert lengths(8, 8) == lengths(8, 9) == [8]


def test_ladder_has_both_limits_and_the_powers_of_two_between() -> None:
    assert ladder(1, 32) == [1, 2, 4, 8, 16, 32]
    assert ladder(3, 31) == [3, 4, 8, 16, 31]
    assert ladder(5, 5) == [5]


def test_limits_without_a_rank_between_them_are_refused() -> None:
    with pytest.raises(RankOutOfRange, match="got 8 to 4"):
        ladder(8, 4)
