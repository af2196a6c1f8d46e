"""Laws of the record of adapters, over any order of rounds, decisions, choices and steps back."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_sdk.adapters.index import AdapterIndex, AdapterKind, Comparison, StoredAdapter
from hetlora.errors import NoAdapter
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.messages.evaluation import EvaluationReport

SCORE = EvaluationReport(example_count=4, loss=0.5, correct_count=3)
STEPS = st.sampled_from(["round", "adopt", "keep", "use global", "use local", "roll back"])


def stored(kind: AdapterKind, round_index: int) -> StoredAdapter:
    return StoredAdapter(
        kind=kind,
        run_id="run-1",
        round_index=round_index,
        bundle="a" * 64,
        rank=2,
        training=TrainingSettings(),
        adaptation=Adaptation(),
        tensors=ObjectRef(sha256=f"{round_index:063x}{'0' if kind == 'global' else '1'}", size_bytes=1),
    )


def after(index: AdapterIndex, step: str, number: int) -> AdapterIndex:
    with suppress(NoAdapter):
        match step:
            case "round":
                return index.after_round(stored("global", number), stored("local", number))
            case "use global":
                return index.using("global")
            case "use local":
                return index.using("local")
            case "roll back":
                return index.rolled_back()
            case _ if index.candidate is not None:
                return index.decided(comparison(index, "adopted" if step == "adopt" else "kept")) or index
    return index


def comparison(index: AdapterIndex, outcome: str) -> Comparison:
    assert index.candidate is not None
    return Comparison(
        outcome=outcome,
        reason="so it is",
        new=index.candidate,
        in_use=index.current,
        new_held_out=SCORE,
        tolerance=0.0,
        decided_at=datetime(2026, 11, 22, tzinfo=UTC),
    )


@given(st.lists(STEPS, max_size=30))
def test_whatever_happens_what_is_in_use_stays_in_use_until_another_is(steps: list[str]) -> None:
    index = AdapterIndex()
    for number, step in enumerate(steps):
        before, index = index, after(index, step, number)
        assert before.current is None or index.current is not None
        if step in ("round", "keep"):
            assert (index.current and index.current.tensors) == (before.current and before.current.tensors)
        assert len(index.stored()) <= 4
        assert index.file_digests() == {own.tensors.sha256 for own in index.stored().values()}
        assert index.before is None or not index.before.is_same(index.current)
        assert AdapterIndex.model_validate_json(index.model_dump_json()) == index


@given(st.lists(STEPS, max_size=30))
def test_roll_back_undoes_what_was_put_in_use_last(steps: list[str]) -> None:
    index = AdapterIndex()
    for number, step in enumerate(steps):
        before, index = index, after(index, step, number)
        changed = before.current is not None and not before.current.is_same(index.current)
        if changed and step != "roll back":
            undone = index.rolled_back()
            assert before.current is not None
            assert before.current.is_same(undone.current)
            assert not undone.is_undecided


def test_figures_stay_with_an_adapter_wherever_it_is() -> None:
    index = after(after(AdapterIndex(), "round", 1), "adopt", 1)
    assert [own.loss for own in index.stored().values()] == [0.5, 0.5, None]  # in use, global, local
    assert index.current is not None
    assert index.current.accuracy == 0.75


def test_decision_about_other_adapters_than_those_there_changes_nothing() -> None:
    index = after(AdapterIndex(), "round", 1)
    old = comparison(index, "adopted")
    assert after(index, "round", 2).decided(old) is None  # a newer one came
    assert after(index, "use local", 2).decided(old) is None  # the app chose
    decided = index.decided(old)
    assert decided is not None
    assert decided.decided(old) is None  # once is enough


def test_index_that_could_not_be_read_again_is_not_made() -> None:
    miswritten: Any = "Global"
    with pytest.raises(ValidationError, match="following"):
        after(AdapterIndex(), "round", 1).using(miswritten)
