"""Calls of what may hang: made in a thread of their own, so that nobody waits longer than they want."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SingleFlight(Generic[Answer]):
    """A call that many may ask for and that runs once at a time: what hangs takes one thread, not many."""

    def __init__(self, name: str, call: Callable[[], Answer]) -> None:
        self._name, self._call = name, call
        self._lock = threading.Lock()
        self._answer: Future[Answer] | None = None

    def ask(self) -> Future[Answer]:
        """The answer to come, of a call that is made now or still runs."""
        with self._lock:
            if self._answer is None or self._answer.done():
                self._answer = Future()
                self._answer.set_running_or_notify_cancel()  # whoever waits no more takes it from nobody else
                threading.Thread(target=self._run, args=(self._answer,), name=self._name, daemon=True).start()
            return self._answer

    def _run(self, answer: Future[Answer]) -> None:
        try:
            found = self._call()
        except Exception as error:
            answer.set_exception(error)
        else:
            answer.set_result(found)
