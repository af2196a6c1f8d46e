"""A whole number of a message is one in JSON too: not true, which Python holds equal to 1, and not "1"."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import hetlora
from hetlora.messages.common import Message


def kinds(base: type[Message] = Message) -> Iterator[type[Message]]:
    for kind in base.__subclasses__():
        yield kind
        yield from kinds(kind)


for module in pkgutil.walk_packages(hetlora.__path__, "hetlora."):
    if module.name.startswith(("hetlora.messages.", "hetlora.manifest")):
        importlib.import_module(module.name)
FIELDS = {
    f"{kind.__name__}.{name}": field
    for kind in kinds()
    if kind.__module__.startswith("hetlora.")  # and of no other module that was imported before
    for name, field in kind.model_fields.items()
}


def whole_numbers(found: object) -> Iterator[int]:
    if type(found) is int:
        yield found
    elif isinstance(found, dict):
        for value in found.values():
            yield from whole_numbers(value)
    elif isinstance(found, tuple):
        for value in found:
            yield from whole_numbers(value)


@pytest.mark.parametrize("told", ["true", '"1"', "1.0"])
@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_field_takes_nothing_else_for_a_whole_number(field: FieldInfo, told: str) -> None:
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    for json in (told, f"[{told}]", f'{{"a": {told}}}'):
        try:
            found = TypeAdapter(kind).validate_json(json)
        except ValidationError:
            continue
        assert not any(whole_numbers(found)), json
