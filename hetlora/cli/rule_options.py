"""How a run aggregates, from words on the command line: names, and `key=value` for each constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal, cast, get_args

import typer
from pydantic import ValidationError

from hetlora.cli.option_words import OptionHelp, key_and_value, options_in_words
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.common import Message
from hetlora.messages.defence import METHODS, Defence
from hetlora.messages.rules import AnyRule
from hetlora.messages.screens import Screens
from hetlora.messages.server_optimizer import ServerAdaptive, ServerMomentum, ServerOptimizer

Kinds = Mapping[str, type[Message]]
Role = Literal["rule", "server_optimizer", "defence"]


def _named(*kinds: type[Message]) -> Kinds:
    return {name: kind for kind in kinds for name in get_args(kind.model_fields["name"].annotation)}


RULES: Final = _named(*get_args(AnyRule))
OPTIMIZERS: Final = _named(ServerMomentum, ServerAdaptive)
DEFENCES: Final[Kinds] = {name: Defence for name in METHODS}


def _completing(kinds: Kinds) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in kinds if name.startswith(incomplete)]

    return complete


RuleOption = Annotated[
    str,
    typer.Option(
        help=f"How updates become the next adapter: {', '.join(RULES)}. `hetlora run rules` explains.",
        autocompletion=_completing(RULES),
    ),
]
OptimizerOption = Annotated[
    str | None,
    typer.Option(
        help=f"Steps towards what the rule gives, instead of taking it: {', '.join(OPTIMIZERS)}.",
        autocompletion=_completing(OPTIMIZERS),
    ),
]
DefenceOption = Annotated[
    str,
    typer.Option(
        help=f"What stands between hostile updates and the rule: {', '.join(DEFENCES)}.",
        autocompletion=_completing(DEFENCES),
    ),
]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Two options of the command line, one for the name and one for its constants, and what they name."""

    role: Role
    flag: str
    option_flag: str
    kinds: Kinds
    name_field: str = "name"
    meanings: Mapping[str, str] = field(default_factory=dict)  # where a message has many names

    def meaning(self, name: str) -> str:
        return self.meanings.get(name) or (self.kinds[name].__doc__ or "").partition("\n")[0]

    def options(self, name: str) -> tuple[OptionHelp, ...]:
        return options_in_words(self.kinds[name], name, self.name_field)


_RULE: Final = _Choice("rule", "--rule", "--rule-option", RULES)
_OPTIMIZER: Final = _Choice("server_optimizer", "--server-optimizer", "--optimizer-option", OPTIMIZERS)
_DEFENCE: Final = _Choice("defence", "--defence", "--defence-option", DEFENCES, "method", METHODS)


class ChoiceHelp(Message):
    """A rule, server optimizer or defence, as `hetlora run rules` lists it."""

    role: Role
    name: str
    meaning: str
    options: tuple[OptionHelp, ...]


def choices_in_words() -> Iterator[ChoiceHelp]:
    """Every rule, server optimizer and defence: what it is, and the constants that it has."""
    for choice in (_RULE, _OPTIMIZER, _DEFENCE):
        for name in choice.kinds:
            yield ChoiceHelp(
                role=choice.role, name=name, meaning=choice.meaning(name), options=choice.options(name)
            )


def rule_of(name: str, options: Sequence[str]) -> AnyRule:
    """The rule that `--rule` and `--rule-option` name.

    Raises:
        SettingsError: no such rule, an option that it does not have, or a value that does not fit.
    """
    return cast(AnyRule, _chosen(_RULE, name, options))


def server_optimizer_of(name: str | None, options: Sequence[str]) -> ServerOptimizer | None:
    """The one that `--server-optimizer` and `--optimizer-option` name; errors as `rule_of`."""
    if name is None:
        if options:
            raise SettingsError("--optimizer-option without --server-optimizer", got=options[0])
        return None
    return cast(ServerOptimizer, _chosen(_OPTIMIZER, name, options))


def defence_of(name: str, clip: bool, options: Sequence[str]) -> Defence:
    """The one that `--defence`, `--clip` and `--defence-option` name; errors as `rule_of`."""
    if name == "fltrust" and not any(option.startswith("trusted_device=") for option in options):
        raise SettingsError(
            "--defence fltrust needs the device that it trusts", expected="--defence-option trusted_device=ID"
        )
    return cast(Defence, _chosen(_DEFENCE, name, [*options, "clip=true"] if clip else options))


def screens_of(wanted: bool, options: Sequence[str]) -> Screens | None:
    """The screens that `--screens` and `--screen-option` ask for.

    Raises:
        SettingsError: options without screens, one that these do not have, or a value that does not fit.
    """
    if not wanted:
        if options:
            raise SettingsError("--screen-option without --screens", got=options[0])
        return None
    values = dict(key_and_value(option, "--screen-option") for option in options)
    unknown = sorted(values.keys() - Screens.model_fields.keys())
    if unknown:
        raise SettingsError(
            "--screens has no option of this name", got=unknown[0], expected=", ".join(Screens.model_fields)
        )
    try:
        return Screens.model_validate(values)
    except ValidationError as error:
        raise SettingsError("--screens does not take this", got=faults_in_words(error.errors())) from error


def _chosen(choice: _Choice, name: str, options: Sequence[str]) -> Message:
    if name not in choice.kinds:
        raise SettingsError(f"{choice.flag} has no such value", got=name, expected=", ".join(choice.kinds))
    kind, known = choice.kinds[name], choice.options(name)
    values = dict(key_and_value(option, choice.option_flag) for option in options)
    unknown = sorted(values.keys() - (kind.model_fields.keys() - {choice.name_field}))
    if unknown:
        raise SettingsError(
            f"{choice.flag} {name} has no option of this name",
            got=", ".join(unknown),
            expected=", ".join(f"{own.name}={own.default_in_words} ({own.range})" for own in known) or "none",
        )
    try:
        return kind.model_validate({choice.name_field: name, **values})
    except ValidationError as error:
        at_fault = {fault["loc"][0] for fault in error.errors() if fault["loc"]}
        expected = [_wanted(own, choice.option_flag) for own in known if own.name in at_fault]
        raise SettingsError(
            f"{choice.flag} {name} does not take this",
            got=faults_in_words(error.errors()),
            expected="; ".join(expected) or None,
        ) from error


def _wanted(option: OptionHelp, flag: str) -> str:
    example = "" if option.example is None else f", such as {flag} {option.name}={option.example}"
    return f"{option.name}: {option.range}{example}"
