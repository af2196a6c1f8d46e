"""`--privacy-option`: the clip and the noise of a run, as an operator asks them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import typer
from pydantic import ValidationError

from hetlora.cli.option_words import key_and_value
from hetlora.errors import SettingsError, faults_in_words
from hetlora.messages.privacy import PrivacySettings

FLAG: Final = "--privacy-option"

PrivacyOption = Annotated[
    list[str] | None,
    typer.Option(
        FLAG,
        help="Differential privacy, as key=value, again for each: clip_norm (C, the longest that one "
        "update's part may be), noise_multiplier (sigma), weight_scale (c, half of clip_norm if not given). "
        "The population needs a budget: `hetlora privacy set-budget`.",
    ),
]


def privacy_of(words: Sequence[str]) -> PrivacySettings | None:
    """The settings that words name as `key=value`; None for no words.

    Raises:
        SettingsError: no such option, one is missing, or a value does not fit.
    """
    if not words:
        return None
    try:
        return PrivacySettings.model_validate(dict(key_and_value(word, FLAG) for word in words))
    except ValidationError as error:
        raise SettingsError(
            f"{FLAG} does not take this",
            got=faults_in_words(error.errors()),
            expected="clip_norm and noise_multiplier, and maybe weight_scale",
        ) from error
