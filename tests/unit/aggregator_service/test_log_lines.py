"""One line as people and machines read it."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator_service.observability.log_context import facts, note, work
from aggregator_service.observability.logs import JsonLines, TextLines


def record(template: object, *values: Any, **options: Any) -> logging.LogRecord:
    made = logging.LogRecord("a.logger", logging.INFO, "file.py", 1, template, values, None, **options)
    made.created = 1_700_000_000.25  # 2023-11-14 22:13:20.250 UTC
    return made


def test_text_line_begins_with_its_time_and_ends_with_what_is_known() -> None:
    with work(request_id="r-1", run="told twice"):
        line = TextLines().format(record("run=%s rounds=%d", "run-1", 3))
    assert line == "2023-11-14T22:13:20.250+00:00 info a.logger run=run-1 rounds=3 request_id=r-1"


def test_what_a_stranger_says_begins_no_text_line_of_its_own() -> None:
    line = TextLines().format(record("path=%s", "/x\n2023-11-14T22:13:20 info a.logger run=forged\x1b[2J"))
    assert line.splitlines() == [line]
    assert line.isprintable()


def test_json_line_has_the_pairs_of_the_message_and_what_is_known_as_fields() -> None:
    with work(request_id="r-1"):
        note(device="d-1")
        line = JsonLines().format(record("%s=%s old=%s done", "round", "round-1", "a b=c"))
    assert json.loads(line) == {
        "time": "2023-11-14T22:13:20.250+00:00",
        "level": "info",
        "logger": "a.logger",
        "message": "round=round-1 old=a b=c done",
        "round": "round-1",
        "old": "a b=c",
        "request_id": "r-1",
        "device": "d-1",
    }


def test_message_cannot_forge_another_field() -> None:
    fields = json.loads(JsonLines().format(record("name=%s", "x level=error request_id=forged")))
    assert fields["level"] == "info"
    assert fields["name"] == "x level=error request_id=forged"
    assert "request_id" not in fields


def test_json_line_of_a_fault_has_its_traceback() -> None:
    try:
        raise KeyError("inside")
    except KeyError:
        fault = record("worker=failed")
        fault.exc_info = sys.exc_info()
    fields = json.loads(JsonLines().format(fault))
    assert fields["worker"] == "failed"
    assert fields["exception"].endswith("KeyError: 'inside'")


@given(st.text())
def test_json_line_is_one_line_whatever_is_told(told: str) -> None:
    line = JsonLines().format(record("name=%s", told))
    assert line.isascii()
    assert "\n" not in line
    assert json.loads(line)["name"] == told


@pytest.mark.parametrize(
    ("template", "values"),
    [("%(name)s here", ({"name": "x"},)), ("100%% of=%s", ("it",)), ("width=%*d", (5, 3)), (["no text"], ())],
)
def test_lines_of_libraries_pass_whatever_their_form(template: object, values: tuple[object, ...]) -> None:
    told = record(template, *values)
    assert json.loads(JsonLines().format(told))["message"] == told.getMessage()


def test_what_is_known_ends_with_the_work() -> None:
    note(run="of nobody")
    with work(round="outer"):
        with work(round="inner"):
            note(run="run-1")
            assert facts() == {"round": "inner", "run": "run-1"}
        assert facts() == {"round": "outer"}
    assert facts() == {}
