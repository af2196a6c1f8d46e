"""Conditions of groups, and stages of rollouts, as they are typed."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hetlora.cli.group import condition_in_words, condition_of
from hetlora.cli.rollout import _stage_of
from hetlora.errors import SettingsError
from hetlora.messages.rollouts import NUMBER_FIELDS, GroupCondition, TextField

TEXTS = st.builds(
    GroupCondition,
    field=st.sampled_from([*get_args(TextField), "label.site", "label.a-b.c_d"]),
    comparison=st.sampled_from(["is", "is_not", "begins_with"]),
    # A value that begins with = reads as another sign's; blanks around it are nobody's.
    value=st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1).filter(
        lambda text: text[0] != "="
    ),
)
NUMBERS = st.builds(
    GroupCondition,
    field=st.sampled_from(NUMBER_FIELDS),
    comparison=st.sampled_from(["is", "is_not", "at_least", "at_most"]),
    value=st.integers(0, 10**14).map(float),
)


@given(TEXTS | NUMBERS)
def test_condition_in_words_is_read_as_the_same(condition: GroupCondition) -> None:
    assert condition_of(condition_in_words(condition)) == condition


@pytest.mark.parametrize("text", ["", "cores", "cores>=many", "=4", "cores>4"])
def test_text_that_is_no_condition_is_told(text: str) -> None:
    with pytest.raises((SettingsError, ValidationError)):
        condition_of(text)


def test_stage_is_read_part_by_part() -> None:
    assert _stage_of("share=0.05, reports=20,failed=0.25,loss=0.5,settle=60") == {
        "share": 0.05,
        "least_reports": 20,
        "most_failed_share": 0.25,
        "most_loss_increase": 0.5,
        "settle_seconds": 60.0,
    }


@pytest.mark.parametrize("text", ["", "share", "share=much", "size=0.5", "reports=1.5"])
def test_text_that_is_no_stage_is_told(text: str) -> None:
    with pytest.raises(SettingsError):
        _stage_of(text)
