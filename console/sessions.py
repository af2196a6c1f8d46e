"""Who is signed in: the operator's key stays in this process, the browser holds a random id of it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Final

from hetlora.cli.operator import Operator
from hetlora.errors import AuthenticationFailed
from hetlora.messages.operators import KeyHolder, OperatorRole

COOKIE: Final = "hetlora_console"
IDLE_SECONDS: Final = 8 * 3600.0
MOST: Final = 1000  # the session that rested longest goes for a new one


class Session:
    """One operator in one browser."""

    def __init__(self, operator: Operator, holder: KeyHolder, now: float) -> None:
        self._operator: Operator | None = operator
        self.holder = holder
        self.used_at = now

    @property
    def operator(self) -> Operator:
        """The connection to the service; AuthenticationFailed once the session has ended."""
        if self._operator is None:
            raise AuthenticationFailed("signed out", expected="an operator's key")
        return self._operator

    def end(self) -> None:
        """Forget the key; pages that are still open can ask for nothing more."""
        self._operator = None

    def refusal(self, needed: OperatorRole) -> str | None:
        """Why the key's role may not do what `needed` may; None where it may."""
        if self.holder.role.covers(needed):
            return None
        return f"needs role {needed}; this key is a {self.holder.role}'s"


class Sessions:
    """All sessions of this process, by their ids; those at rest for `IDLE_SECONDS` end."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_id: dict[str, Session] = {}
        self._lock = threading.Lock()

    def open(self, operator: Operator, holder: KeyHolder) -> str:
        """Begin a session; its id is what the browser's cookie holds."""
        session_id = secrets.token_urlsafe(32)
        with self._lock:
            self._drop_idle()
            if len(self._by_id) >= MOST:
                self._by_id.pop(min(self._by_id, key=lambda one: self._by_id[one].used_at)).end()
            self._by_id[session_id] = Session(operator, holder, self._clock())
        return session_id

    def find(self, session_id: str | None) -> Session | None:
        """The session of an id, which counts as used by that."""
        with self._lock:
            self._drop_idle()
            session = self._by_id.get(session_id or "")
            if session is not None:
                session.used_at = self._clock()
            return session

    def close(self, session_id: str | None) -> None:
        """End a session; one that has ended already is let be."""
        with self._lock:
            session = self._by_id.pop(session_id or "", None)
        if session is not None:
            session.end()

    def _drop_idle(self) -> None:
        oldest = self._clock() - IDLE_SECONDS
        for session_id in [one for one, session in self._by_id.items() if session.used_at < oldest]:
            self._by_id.pop(session_id).end()
