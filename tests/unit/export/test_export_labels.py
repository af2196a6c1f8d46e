from __future__ import annotations

import pytest

from export.labels import parse_labels
from hetlora.errors import ModelNotExportable


def test_label_is_its_own_text_unless_one_is_given() -> None:
    assert parse_labels(["maths", "net = sockets and servers"]) == {
        "maths": "maths",
        "net": "sockets and servers",
    }


def test_only_the_first_sign_divides() -> None:
    assert parse_labels(["a=x=1", "b"]) == {"a": "x=1", "b": "b"}


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param([], id="none"),
        pytest.param(["one"], id="one"),
        pytest.param(["a", "b", "a"], id="twice"),
        pytest.param(["a=first", "a=second"], id="twice with texts"),
        pytest.param(["a", " "], id="blank"),
        pytest.param(["a", "b="], id="empty text"),
        pytest.param(["a", "=text"], id="empty name"),
    ],
)
def test_labels_that_name_no_classes_are_refused(labels: list[str]) -> None:
    with pytest.raises(ModelNotExportable, match="two or more different names"):
        parse_labels(labels)


def test_mapping_gives_the_texts_by_name_whatever_stands_in_a_name() -> None:
    assert parse_labels({"a=b": "first", "c": "second"}) == {"a=b": "first", "c": "second"}
