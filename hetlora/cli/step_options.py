"""`--step-option`: how devices take their steps, as an operator asks it of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from hetlora.cli.option_words import key_and_value
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.step_options import StepOptions

FLAG: Final = "--step-option"

StepOptionsOption = Annotated[
    list[str] | None,
    typer.Option(
        FLAG,
        help="How devices take their steps, as key=value, again for each: optimizer (adamw, sgd), momentum "
        "(of sgd), schedule (constant, linear, cosine), warm_up_steps, max_gradient_norm, proximal (mu of "
        "FedProx), divergence_factor and divergence_steps (training ends where so many losses running are "
        "above so many times the first).",
    ),
]


def step_options_of(words: Sequence[str]) -> StepOptions:
    """The options that words name as `key=value`.

    Raises:
        SettingsError: no such option, or a value that does not fit.
    """
    values = dict(key_and_value(word, FLAG) for word in words)
    unknown = sorted(values.keys() - StepOptions.model_fields.keys())
    if unknown:
        raise SettingsError(
            f"{FLAG} has no such value", got=", ".join(unknown), expected=", ".join(StepOptions.model_fields)
        )
    try:
        return StepOptions.model_validate(values)
    except ValidationError as error:
        raise SettingsError(f"{FLAG} does not take this", got=faults_in_words(error.errors())) from error
