from __future__ import annotations

from benchmarks.service.board import NONCE_SECONDS, Board


def test_what_was_sent_under_a_wrong_clock_or_before_a_death_of_the_database_is_not_replayed() -> None:
    board = Board()
    assert board.may_replay(10.0)
    board.clocks_right_since = 10.0
    assert not board.may_replay(10.0)
    board.database_died_at.append(20.0)
    assert not board.may_replay(20.0 - NONCE_SECONDS)
    assert board.may_replay(20.0 - NONCE_SECONDS - 1)
    assert board.may_replay(21.0)
