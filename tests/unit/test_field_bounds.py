"""Of two bounds of one kind on a field pydantic keeps the last, which need not be the narrower one."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter
from collections.abc import Iterator

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError

import hetlora.cost
import hetlora.manifest
import hetlora.messages
from aggregator_service.settings import Settings
from hetlora.errors import SettingsError
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationReport, EvaluationSettings
from hetlora.messages.management import RunSettings
from hetlora.messages.rules import FloraRule

RUN = {"goal_count": 1, "max_rank": 4}
EVALUATION = {"devices": 3}


def kinds() -> Iterator[type[BaseModel]]:
    """All messages, and the settings of the service."""
    for found in pkgutil.iter_modules(hetlora.messages.__path__):
        importlib.import_module(f"hetlora.messages.{found.name}")
    asked: list[type[BaseModel]] = [BaseModel]
    while asked:
        subclasses = asked.pop().__subclasses__()
        asked += subclasses
        yield from (kind for kind in subclasses if kind.__module__.startswith(("hetlora.", "aggregator_")))


def test_no_field_has_two_bounds_of_one_kind() -> None:
    seen, twice = {Settings, hetlora.cost.CostModel, hetlora.manifest.Manifest}, []
    for kind in kinds():
        seen.add(kind)
        for name, field in kind.model_fields.items():
            bounds = Counter(type(mark) for mark in field.metadata if isinstance(mark, Ge | Gt | Le | Lt))
            twice += [f"{kind.__name__}.{name}" for count in bounds.values() if count > 1]
    assert len(seen) > 50
    assert twice == []


@pytest.mark.parametrize(
    ("kind", "fields", "name", "least", "most"),
    [
        (RunSettings, RUN, "rounds", 1, 100_000),
        (RunSettings, RUN, "goal_count", 1, 1_000_000),
        (RunSettings, RUN | {"mode": "buffered"}, "max_staleness", 1, 100_000),
        (TrainingSettings, {}, "steps", 1, 100_000),
        (TrainingSettings, {}, "batch_size", 1, 4096),
        (TrainingSettings, {}, "max_tokens", 1, 8192),
        (EvaluationSettings, EVALUATION, "every_rounds", 1, 100_000),
        (EvaluationSettings, EVALUATION, "devices", 3, 100_000),
        (EvaluationReport, {"loss": 1.0}, "example_count", 1, 1_000_000),
        (FloraRule, {}, "frozen_rank", 1, 1_000_000),
    ],
)
def test_count_is_bounded_at_both_ends(
    kind: type[BaseModel], fields: dict[str, object], name: str, least: int, most: int
) -> None:
    for taken in (least, most):
        assert getattr(kind.model_validate(fields | {name: taken}), name) == taken
    for refused in (least - 1, most + 1, str(least), True, float(most)):
        with pytest.raises(ValidationError):
            kind.model_validate(fields | {name: refused})


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("claim_seconds", 1, None),
        ("worker_interval_seconds", 0.01, None),
        ("keep_orphans_seconds", 3600, None),
        ("database_timeout_seconds", None, 3600),
    ],
)
def test_time_of_the_service_is_bounded(name: str, least: float | None, most: float | None) -> None:
    for taken in (least, most):
        assert taken is None or getattr(Settings.model_validate({name: taken}), name) == taken
    for refused in (None if least is None else least * 0.99, None if most is None else most + 1):
        if refused is not None:
            with pytest.raises(SettingsError, match=f"HETLORA_{name.upper()}"):
                Settings.model_validate({name: refused})
