"""Options that only some of the names of a message use: set with another name, they would do nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hetlora.messages.common import Message


@dataclass(frozen=True, slots=True)
class OnlyWith:
    """Stands in the annotation of a field, and names who uses it."""

    names: tuple[str, ...]


def options_of(kind: type[Message], name: str, field: str = "name") -> Iterator[str]:
    """The options that a message of this name uses; `field` is where the name stands."""
    for key, own in kind.model_fields.items():
        if key != field and all(name in mark.names for mark in own.metadata if isinstance(mark, OnlyWith)):
            yield key


def check_all_used(message: Message, field: str = "name") -> None:
    """Raise unless what the name does not use is left at its default, as stored settings hold it.

    Raises:
        ValueError: an option that does nothing with this name.
    """
    name = getattr(message, field)
    used = {field, *options_of(type(message), name, field)}
    for key, own in type(message).model_fields.items():
        if key not in used and getattr(message, key) != own.default:
            users = [other for mark in own.metadata if isinstance(mark, OnlyWith) for other in mark.names]
            raise ValueError(f"{key} does nothing with {name}; it belongs to {', '.join(users)}")
