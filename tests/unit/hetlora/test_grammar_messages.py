from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from hetlora.messages import device, fleet, management
from hetlora.messages.common import MAX_INTEGER, Message, ObjectRef, Page
from hetlora.messages.device import (
    CheckIn,
    EnrolRequest,
    Failure,
    Plan,
    Report,
    StartRequest,
    TrainingSettings,
)
from hetlora.messages.fleet import PopulationCreate
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import HetLoraRule, RblaRule, ZeroPadRule

SHA256 = "0" * 64
REPORT: dict[str, Any] = {
    "update": {"sha256": SHA256, "size_bytes": 10},
    "rank": 4,
    "example_count": 20,
    "steps": 10,
    "first_loss": 0.75,
    "last_loss": 0.5,
    "training_seconds": 1.5,
    "peak_memory_bytes": 1000,
    "downloaded_bytes": 0,
}
PLAN: dict[str, Any] = {
    "assignment_id": "a1",
    "rank": 4,
    "adapter": {"sha256": SHA256, "size_bytes": 10},
    "seed": 7,
    "lease_expires_at": "2026-11-20T12:00:00Z",
}


def read(kind: type[Message], fields: dict[str, Any], **changes: object) -> Message:
    return kind.model_validate_json(json.dumps(fields | changes))


def test_every_message_is_frozen_closed_and_documented() -> None:
    kinds = [
        kind
        for module in (device, fleet, management)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Message)
    ]
    assert len(kinds) > 25
    assert [kind.__name__ for kind in kinds if not kind.__doc__] == []
    assert all(kind.model_config["frozen"] and kind.model_config["extra"] == "forbid" for kind in kinds)


def test_unknown_field_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="surprise"):
        read(Report, REPORT, surprise=1)


@pytest.mark.parametrize("field", ["first_loss", "last_loss", "training_seconds"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_numbers_that_are_not_finite_are_refused(field: str, value: str) -> None:
    text = json.dumps(REPORT | {field: "HERE"}).replace('"HERE"', value)
    with pytest.raises(ValidationError, match=field):
        Report.model_validate_json(text)


@pytest.mark.parametrize("field", ["rank", "example_count", "steps", "peak_memory_bytes", "downloaded_bytes"])
@pytest.mark.parametrize("value", [-1, 2**53, 2**63, 10**30, 1e300, "ten"])
def test_counts_that_json_or_a_database_would_bend_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        read(Report, REPORT, **{field: value})


@pytest.mark.parametrize("value", ["2", True, 2.0, None])
def test_what_is_no_integer_is_not_taken_for_one(value: object) -> None:
    with pytest.raises(ValidationError, match="rank"):
        read(StartRequest, {"rank": value})
    for field in ("rounds", "goal_count", "max_rank"):
        with pytest.raises(ValidationError, match=field):
            read(RunSettings, {"goal_count": 1, "max_rank": 1, field: value})
    with pytest.raises(ValidationError, match="steps"):
        read(TrainingSettings, {"steps": value})


@pytest.mark.parametrize("field", ["example_count", "steps"])
def test_report_of_no_work_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        read(Report, REPORT, **{field: 0})


def test_largest_exact_integer_is_accepted() -> None:
    largest = read(Report, REPORT, downloaded_bytes=MAX_INTEGER)
    assert json.loads(largest.model_dump_json())["downloaded_bytes"] == 9007199254740991


def test_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValidationError, match="timezone"):
        read(Plan, PLAN, lease_expires_at="2026-11-20T12:00:00")
    with pytest.raises(ValidationError, match="timezone"):
        Plan.model_validate(PLAN | {"lease_expires_at": datetime(2026, 11, 20, 12)})


def test_time_of_another_zone_is_the_same_moment() -> None:
    plan = read(Plan, PLAN, lease_expires_at="2026-11-20T13:00:00+01:00")
    assert isinstance(plan, Plan)
    assert plan.lease_expires_at == datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize("sha256", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, SHA256 + "\n"])
def test_digest_of_another_form_is_refused(sha256: str) -> None:
    with pytest.raises(ValidationError, match="sha256"):
        ObjectRef(sha256=sha256, size_bytes=1)


@pytest.mark.parametrize("name", ["", "Upper", "-first", "a" * 64, "a/b", "..", "a\n", "a b", "é"])
def test_population_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        PopulationCreate(name=name)


@pytest.mark.parametrize("identifier", ["", "a" * 65, "a/b", "a\n", "..", "a b"])
def test_identifier_of_another_form_is_refused(identifier: str) -> None:
    with pytest.raises(ValidationError, match="assignment_id"):
        read(Plan, PLAN, assignment_id=identifier)


@pytest.mark.parametrize("key", ["", "A" * 43, "A" * 44, "A" * 42 + "==", "A" * 43 + "=\n", "-" * 43 + "="])
def test_public_key_that_is_not_32_bytes_of_base64_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match="public_key"):
        EnrolRequest(population="p", enrolment_token="t", public_key=key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cores", 0),
        ("matmul_flops_per_second", 0),
        ("memory_total_bytes", -1),
        ("source", "guessed"),
        ("architecture", "X86 64"),
        ("accelerator", "a" * 33),
        ("network", ""),
        ("memory_bandwidth_bytes_per_second", 0),
        ("download_bytes_per_second", float("inf")),
    ],
)
def test_impossible_capabilities_are_refused(field: str, value: object) -> None:
    capabilities = {
        "source": "given",
        "cores": 2,
        "memory_total_bytes": 1,
        "memory_available_bytes": 1,
        "matmul_flops_per_second": 1.0,
        "disk_free_bytes": 1,
    }
    check_in = {
        "protocol_version": 1,
        "sdk_version": "0.1.0",
        "population": "p",
        "capabilities": capabilities,
        "example_count": 0,
    }
    assert read(CheckIn, check_in)
    with pytest.raises(ValidationError, match=field):
        read(CheckIn, check_in, capabilities=capabilities | {field: value})


@pytest.mark.parametrize("code", ["", "Upper", "with space", "a" * 65, "a\n"])
def test_failure_code_of_another_form_is_refused(code: str) -> None:
    with pytest.raises(ValidationError, match="code"):
        Failure(code=code, message="")


def test_run_with_min_rank_above_max_rank_is_refused() -> None:
    assert RunSettings(goal_count=1, min_rank=4, max_rank=4).rounds == 5
    with pytest.raises(ValidationError, match="min_rank 5 is above max_rank 4"):
        RunSettings(goal_count=1, min_rank=5, max_rank=4)


@pytest.mark.parametrize("field", ["report_window_seconds", "lease_seconds"])
@pytest.mark.parametrize("value", [1e-9, 0.999, 365 * 24 * 3600 + 1, 1e12, 1e300])
def test_times_of_a_run_that_no_clock_can_keep_are_refused(field: str, value: float) -> None:
    for kept in (1, 365 * 24 * 3600):
        assert RunSettings.model_validate({"goal_count": 1, "max_rank": 1, field: kept})
    with pytest.raises(ValidationError, match=field):
        RunSettings.model_validate({"goal_count": 1, "max_rank": 1, field: value})


def test_page_keeps_the_type_of_its_items() -> None:
    page = Page[ObjectRef](items=(ObjectRef(sha256=SHA256, size_bytes=1),), next_cursor="2")
    assert Page[ObjectRef].model_validate_json(page.model_dump_json()) == page
    with pytest.raises(ValidationError, match="size_bytes"):
        Page[ObjectRef].model_validate_json(page.model_dump_json().replace(":1}", ":-1}"))


def test_self_pruning_is_off_by_default_but_with_its_own_rule() -> None:
    plain = RunSettings(goal_count=1, max_rank=4, rule=HetLoraRule())
    other = RunSettings(goal_count=1, max_rank=4, rule=RblaRule(), training=TrainingSettings(steps=3))
    asked = RunSettings(
        goal_count=1, max_rank=4, rule=ZeroPadRule(), training=TrainingSettings(pruning_decay=0.9)
    )
    assert plain.training.pruning_decay == 0.99
    assert (other.training.pruning_decay, other.training.pruning_penalty, other.training.steps) == (1, 0, 3)
    assert (asked.training.pruning_decay, asked.training.pruning_penalty) == (0.9, 0)
    assert RunSettings.model_validate_json(other.model_dump_json()) == other


def test_bare_name_of_a_rule_stands_for_its_papers_constants() -> None:
    settings = RunSettings.model_validate({"goal_count": 1, "max_rank": 4, "rule": "rbla"})
    assert settings.rule == RblaRule()
