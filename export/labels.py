"""The class labels of a bundle."""

from __future__ import annotations

from collections.abc import Sequence

from hetlora.errors import ModelNotExportable


def parse_labels(labels: Sequence[str]) -> dict[str, str]:
    """The text to embed for each label name, in order; a label is `name` or `name=describing text`.

    Raises:
        ModelNotExportable: fewer than two labels, an empty name or text, or a name given twice.
    """
    pairs = [(name.strip(), (text if sign else name).strip()) for name, sign, text in _split(labels)]
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(pairs) < 2 or twice or not all(name and text for name, text in pairs):
        raise ModelNotExportable(
            "the labels cannot name classes",
            got=f"{list(labels)}" + (f" with {twice} twice" if twice else ""),
            expected="two or more different names, each with a text that is not empty",
        )
    return dict(pairs)


def _split(labels: Sequence[str]) -> list[tuple[str, str, str]]:
    return [label.partition("=") for label in labels]
