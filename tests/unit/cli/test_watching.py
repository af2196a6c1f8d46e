"""Watching goes on until the end, over a service that is started anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from hetlora.cli.watching import looks
from hetlora.errors import NotFound, ServiceUnreachable


def script(*answers: int | Exception) -> Callable[[], int]:
    left: Iterator[int | Exception] = iter(answers)

    def look() -> int:
        answer = next(left)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return look


def watched(*answers: int | Exception) -> list[int]:
    """What is seen; 3 is the end."""
    return list(looks(script(*answers), lambda seen: seen == 3, 0.001))


def test_everything_is_seen_up_to_the_end_and_nothing_after_it() -> None:
    assert watched(1, 1, 2, 3, 4) == [1, 1, 2, 3]


def test_service_that_is_away_for_a_moment_is_waited_for() -> None:
    away = ServiceUnreachable("no answer")
    assert watched(1, away, away, 2, away, 3) == [1, 2, 3]


def test_service_that_never_answered_is_told_at_once() -> None:
    with pytest.raises(ServiceUnreachable):
        watched(ServiceUnreachable("no answer"), 3)


def test_refusal_ends_the_watching() -> None:
    with pytest.raises(NotFound):
        watched(1, NotFound("no such run"), 3)
