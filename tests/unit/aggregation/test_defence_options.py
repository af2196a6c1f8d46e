"""Which methods a defence's options go with, and which use them."""

from __future__ import annotations

from aggregator_service.aggregation.robust import defence as robust
from hetlora.messages import defence as settings


def test_methods_that_compare_updates_are_those_that_are_limited() -> None:
    assert set(settings.COMPARING) == set(robust.COMPARING)
