"""The fleet that the end-to-end tests run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_fleet import TinyFleet

from hetlora.bundle import Bundle


@pytest.fixture
def fleet(tmp_path: Path, tiny_bundle: Bundle) -> Iterator[TinyFleet]:
    """A running service with the tiny bundle published; its devices end with the test."""
    with TinyFleet(tmp_path, tiny_bundle) as fleet:
        yield fleet
