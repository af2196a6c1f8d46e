"""Who is signed in, and until when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from console.sessions import IDLE_SECONDS, MOST, Session, Sessions
from hetlora.cli.operator import Operator
from hetlora.errors import AuthenticationFailed
from hetlora.messages.operators import KeyHolder, OperatorRole


class Clock:
    """Seconds that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def operator() -> Iterator[Operator]:
    with Operator("http://127.0.0.1:1", "token") as operator:
        yield operator


def holder(role: OperatorRole = OperatorRole.VIEWER) -> KeyHolder:
    return KeyHolder(key_id="one", name="alice", role=role)


def test_session_that_rests_ends_and_its_key_is_forgotten(operator: Operator) -> None:
    clock = Clock()
    sessions = Sessions(clock)
    session_id = sessions.open(operator, holder())
    clock.now = IDLE_SECONDS
    session = sessions.find(session_id)
    assert session is not None
    assert session.operator is operator
    clock.now = 2 * IDLE_SECONDS + 1

    assert sessions.find(session_id) is None
    with pytest.raises(AuthenticationFailed):
        _ = session.operator


def test_page_that_is_open_at_sign_out_can_ask_for_nothing(operator: Operator) -> None:
    sessions = Sessions()
    session_id = sessions.open(operator, holder())
    session = sessions.find(session_id)
    assert session is not None

    sessions.close(session_id)
    sessions.close(session_id)

    with pytest.raises(AuthenticationFailed):
        _ = session.operator


def test_of_too_many_sessions_the_one_that_rested_longest_goes(operator: Operator) -> None:
    clock = Clock()
    sessions = Sessions(clock)
    opened = []
    for _ in range(MOST + 1):
        clock.now += 1
        opened.append(sessions.open(operator, holder()))

    assert sessions.find(opened[0]) is None
    assert sessions.find(opened[1]) is not None


@pytest.mark.parametrize(("role", "may"), [("viewer", False), ("operator", True), ("admin", True)])
def test_role_that_may_not_is_told_which_may(operator: Operator, role: str, may: bool) -> None:
    session = Session(operator, holder(OperatorRole(role)), 0)

    refusal = session.refusal(OperatorRole.OPERATOR)

    assert refusal == (None if may else "needs role operator; this key is a viewer's")


def test_no_session_is_found_without_its_id() -> None:
    assert Sessions().find(None) is None
    assert Sessions().find("") is None
