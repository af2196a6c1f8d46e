"""The class labels of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hetlora.errors import ModelNotExportable


def parse_labels(labels: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """The text to embed for each label name, in order.

    A mapping gives the texts by name; in a sequence a label is `name`, or `name=describing text`.

    Raises:
        ModelNotExportable: fewer than two labels, an empty name or text, or a name given twice.
    """
    given = labels.items() if isinstance(labels, Mapping) else map(_split, labels)
    pairs = [(name.strip(), text.strip()) for name, text in given]
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if len(pairs) < 2 or twice or not all(name and text for name, text in pairs):
        raise ModelNotExportable(
            "the labels cannot name classes",
            got=f"{list(labels)}" + (f" with {twice} twice" if twice else ""),
            expected="two or more different names, each with a text that is not empty",
        )
    return dict(pairs)


def _split(label: str) -> tuple[str, str]:
    name, sign, text = label.partition("=")
    return name, text if sign else name
