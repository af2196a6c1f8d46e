from __future__ import annotations

import os
from typing import Any

import pytest

from edge_sdk.runtimes.settings import capped_threads
from hetlora.errors import SettingsError


def test_threads_are_no_more_than_cores() -> None:
    cores = os.cpu_count() or 1
    assert (capped_threads(10**6), capped_threads(1), capped_threads(None)) == (cores, 1, None)


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_threads_that_are_no_number_of_threads_are_refused(threads: Any) -> None:
    with pytest.raises(SettingsError, match="expected 1 or more"):
        capped_threads(threads)
