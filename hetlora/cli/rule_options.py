"""How a run aggregates, from words on the command line: names, and `key=value` for each constant."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast, get_args

from pydantic import ValidationError

from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.common import Message
from hetlora.messages.defence import Defence
from hetlora.messages.rules import AnyRule
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum, ServerOptimizer

Kinds = Mapping[str, type[Message]]


def _names(kind: type[Message], field: str = "name") -> tuple[str, ...]:
    return get_args(kind.model_fields[field].annotation)


RULES: Final[Kinds] = {name: kind for kind in get_args(AnyRule) for name in _names(kind)}
OPTIMIZERS: Final[Kinds] = {name: kind for kind in (ServerMomentum, ServerAdaptive) for name in _names(kind)}
DEFENCES: Final[Kinds] = dict.fromkeys(_names(Defence, "method"), Defence)


class RuleHelp(Message):
    """A rule as `hetlora run rules` lists it."""

    name: str
    meaning: str
    options: str  # with their defaults


def rules_in_words() -> Iterator[RuleHelp]:
    """Every rule, what it is, and the constants that it has."""
    for name, kind in RULES.items():
        yield RuleHelp(name=name, meaning=_first_sentence(kind), options=_options_in_words(kind))


def rule_of(name: str, options: Sequence[str]) -> AnyRule:
    """The rule that `--rule` and `--rule-option` name.

    Raises:
        SettingsError: no such rule, an option that it does not have, or a value that does not fit.
    """
    return cast(AnyRule, _chosen("--rule", RULES, name, options))


def server_optimizer_of(name: str | None, options: Sequence[str]) -> ServerOptimizer | None:
    """The one that `--server-optimizer` and `--optimizer-option` name; errors as `rule_of`."""
    if name is None:
        if options:
            raise SettingsError("--optimizer-option without --server-optimizer", got=options[0])
        return None
    return cast(ServerOptimizer, _chosen("--server-optimizer", OPTIMIZERS, name, options))


def defence_of(name: str, clip: bool, options: Sequence[str]) -> Defence:
    """The one that `--defence`, `--clip` and `--defence-option` name; errors as `rule_of`."""
    given = [*options, "clip=true"] if clip else options
    return cast(Defence, _chosen("--defence", DEFENCES, name, given, field="method"))


def _chosen(option: str, kinds: Kinds, name: str, options: Sequence[str], *, field: str = "name") -> Message:
    if name not in kinds:
        raise SettingsError(f"{option} has no such value", got=name, expected=", ".join(kinds))
    kind = kinds[name]
    values = dict(map(_key_and_value, options))
    unknown = sorted(values.keys() - (kind.model_fields.keys() - {field}))
    if unknown:
        raise SettingsError(
            f"{option} {name} has no option of this name",
            got=", ".join(unknown),
            expected=_options_in_words(kind, field) or "none",
        )
    try:
        return kind.model_validate({field: name, **values})
    except ValidationError as error:
        raise SettingsError(
            f"{option} {name} does not take this",
            got=faults_in_words(error.errors()),
            expected=_options_in_words(kind, field) or "no option",
        ) from error


def _key_and_value(option: str) -> tuple[str, Any]:
    """Numbers, lists and truth values are JSON's; all else is a word."""
    key, equals, text = option.partition("=")
    if not equals or not key:
        raise SettingsError("an option of a rule", got=option, expected="key=value")
    try:
        return key, json.loads(text)
    except json.JSONDecodeError:
        return key, text


def _options_in_words(kind: type[Message], field: str = "name") -> str:
    """Each with its default, and with its values where they are words."""
    told = []
    for key, own in kind.model_fields.items():
        if key == field:
            continue
        words = [value for value in get_args(own.annotation) if isinstance(value, str)]
        default = own.default if isinstance(own.default, str) else json.dumps(own.default)
        told.append(f"{key}={default}" + (f" ({' | '.join(words)})" if words else ""))
    return ", ".join(told)


def _first_sentence(kind: type[Message]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
