"""The options of a rule, server optimizer or defence in words, from its message's JSON schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from hetlora.errors import SettingsError
from hetlora.messages.common import MAX_INTEGER, Message
from hetlora.messages.only_with import options_of

Schema = Mapping[str, Any]


class OptionHelp(Message):
    """One constant, as `hetlora run rules` lists it."""

    name: str
    default: Any  # as in JSON
    range: str
    meaning: str
    example: str | None = None  # where the range does not show how a value is written

    @property
    def default_in_words(self) -> str:
        """As it would be given on the command line."""
        return _written(self.default)


def options_in_words(kind: type[Message], name: str, name_field: str) -> tuple[OptionHelp, ...]:
    """The options that a message of this name uses; `name_field` is where the name stands."""
    schemas = kind.model_json_schema()["properties"]
    return tuple(_option(key, schemas[key]) for key in options_of(kind, name, name_field))


def _option(key: str, schema: Schema) -> OptionHelp:
    example = next(map(_written, schema.get("examples", ())), None)
    return OptionHelp(
        name=key,
        default=schema["default"],
        range=_range(schema),
        meaning=schema["description"],
        example=example,
    )


def _range(schema: Schema) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_range, schema["anyOf"]))
    match schema["type"]:
        case "boolean":
            return "true | false"
        case "array":
            return f"list, each {_range(schema['items'])}"
        case "integer" | "number":
            return _limits(schema)
        case "string" if "enum" in schema:
            return " | ".join(schema["enum"])
        case "string":
            return "word"
        case plain:
            return str(plain)


def _limits(schema: Schema) -> str:
    least = _written(schema["minimum"])
    if "exclusiveMaximum" in schema:
        return f"{least} to below {_written(schema['exclusiveMaximum'])}"
    most = schema["maximum"]
    return f"{least} or more" if most == MAX_INTEGER else f"{least} to {_written(most)}"


def _written(value: object) -> str:
    """A value as it stands behind `key=`: words bare, all else as JSON, whole numbers without a point."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, separators=(",", ":"))


def key_and_value(option: str, flag: str) -> tuple[str, Any]:
    """What `key=value` says; numbers, lists and truth values are JSON's, all else is a word.

    Raises:
        SettingsError: it is not written like this.
    """
    key, equals, text = option.partition("=")
    if not equals or not key:
        raise SettingsError(flag, got=option, expected="key=value")
    try:
        return key, json.loads(text)
    except (ValueError, RecursionError):  # no JSON, or more digits or depth than Python reads
        return key, text
