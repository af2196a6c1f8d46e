"""What `hetlora device run` says of a visit that brought no work."""

from __future__ import annotations

import pytest

from edge_sdk import Visit
from hetlora.cli.visits import VisitTeller


@pytest.mark.parametrize(
    ("visit", "line"),
    [
        (Visit("no_work", "no run is active", 1.0), "no work: no run is active\n"),
        (Visit("not_allowed", "the battery is low", 1.0), "not now: the battery is low\n"),
        (Visit("stopped", "it was asked to end", 0.0), "stopped: it was asked to end\n"),
    ],
    ids=["no work", "not allowed", "stopped"],
)
def test_visit_without_work_says_why(visit: Visit, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    VisitTeller(as_json=False).on_visit(visit)
    assert capsys.readouterr().out == line
