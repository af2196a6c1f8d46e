"""Reads PEFT's adapter_config.json: each module's rank and scaling, and whether the adapter is plain LoRA."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hetlora.errors import AdapterError, BodyTooLarge, faults_in_words
from hetlora.messages.common import PositiveCount

CONFIG_NAME: Final = "adapter_config.json"
MAX_CONFIG_BYTES: Final = 4 * 1024 * 1024

# Whatever these hold, the product B A of a loaded adapter is the same. Anything else that is set makes it
# more than plain LoRA, and so does a field that some later PEFT adds.
_HARMLESS: Final = frozenset(
    {
        *("alpha_pattern", "lora_alpha", "peft_type", "r", "rank_pattern", "use_rslora"),  # read here
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "revision", "task_type"),
        *("exclude_modules", "layers_pattern", "layers_to_transform", "target_modules"),
        *("ensure_weight_tying", "eva_config", "fan_in_fan_out", "init_lora_weights", "lora_dropout"),
        *("megatron_core", "peft_version", "qalora_group_size"),
    }
)
_OFF: Final[tuple[object, ...]] = (None, False, "none", [], {})
# Other beginnings, such as PiSSA, take their part out of the base weights, which the adapter then completes.
_PLAIN_BEGINNINGS: Final = (True, False, "gaussian", "eva", "orthogonal")

Number = TypeVar("Number", int, float)
# What patterns of modules need: groups that are not repeated, and few wildcards. Python matches nested and
# many repetitions in a time that grows with their powers.
_REPEATED_GROUP: Final = re.compile(r"\)\s*[*+?{]")
_MAX_REPETITIONS: Final = 4
# Far beyond any use, and so that quotients with ranks stay within float64.
_MAX_ALPHA: Final = 1e9


class PeftConfig(BaseModel):
    """What decides each module's rank and scaling; the defaults are PEFT's own."""

    model_config = ConfigDict(frozen=True, strict=True)

    r: PositiveCount = 8
    lora_alpha: float = Field(8.0, ge=1 / _MAX_ALPHA, le=_MAX_ALPHA)
    use_rslora: bool = False
    rank_pattern: dict[str, PositiveCount] | None = None
    alpha_pattern: dict[str, Annotated[float, Field(ge=-_MAX_ALPHA, le=_MAX_ALPHA)]] | None = None
    base_model_name_or_path: str | None = None

    @property
    def scaling(self) -> float:
        """lora_alpha / r, patterns and rank stabilisation left out."""
        return self.lora_alpha / self.r

    def rank_of(self, module: str) -> int:
        """The rank that PEFT gives a module."""
        return _by_pattern(self.rank_pattern, module, self.r)

    def scaling_of(self, module: str) -> float:
        """What PEFT multiplies a module's B A by; rank-stabilised LoRA (arXiv 2312.03732) has sqrt(r)."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read_peft_config(folder: Path) -> PeftConfig:
    """Read the configuration of a PEFT folder; nothing in it is trusted.

    Raises:
        AdapterError: it is missing, unreadable or no LoRA configuration, or the adapter is more than LoRA
            factors: DoRA, trained biases, modules or tokens saved whole, changed base weights, and others.
        BodyTooLarge: more bytes than any configuration needs.
    """
    found = _read_object(folder / CONFIG_NAME)
    _check_plain(found)
    try:
        return PeftConfig.model_validate(found)
    except ValidationError as error:
        raise AdapterError(
            "the PEFT configuration does not fit LoRA",
            got=faults_in_words([{**fault} for fault in error.errors()]),
            expected="r, lora_alpha and their patterns as PEFT writes them",
        ) from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        size = path.stat().st_size
        if size > MAX_CONFIG_BYTES:
            raise BodyTooLarge(
                f"{path.name} is too large", got=f"{size} bytes", expected=f"up to {MAX_CONFIG_BYTES}"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(
            f"{path.name} of the PEFT folder cannot be read", got=error, expected="a folder that PEFT saved"
        ) from error
    if not isinstance(found, dict):
        raise AdapterError(f"{path.name} is no JSON object", got=type(found).__name__, expected="an object")
    return found


def _check_plain(config: Mapping[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise AdapterError("the PEFT adapter is not LoRA", got=config.get("peft_type"), expected="LORA")
    more = [name for name, value in config.items() if name not in _HARMLESS and value not in _OFF]
    if more:
        raise AdapterError(
            "the PEFT adapter is more than LoRA factors of linear layers",
            got=", ".join(f"{name}={json.dumps(config[name])}" for name in more),
            expected="an adapter trained without",
        )
    beginning = config.get("init_lora_weights", True)
    if beginning not in _PLAIN_BEGINNINGS:
        raise AdapterError(
            "the PEFT adapter belongs to base weights that its beginning has changed",
            got=f"init_lora_weights={json.dumps(beginning)}",
            expected="an adapter that PEFT has converted to plain LoRA",
        )


def _check_pattern(pattern: str) -> None:
    if _REPEATED_GROUP.search(pattern) or sum(map(pattern.count, "*+{")) > _MAX_REPETITIONS:
        raise AdapterError(
            "a pattern of the PEFT configuration may take too long to match",
            got=repr(pattern),
            expected=f"no repeated group, and up to {_MAX_REPETITIONS} repetitions",
        )


def _by_pattern(patterns: Mapping[str, Number] | None, module: str, otherwise: Number) -> Number:
    """The value of the first pattern that matches a module as in PEFT, on whole parts of its name's end."""
    for pattern, value in (patterns or {}).items():
        _check_pattern(pattern)
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except (re.error, OverflowError, RecursionError) as error:
            raise AdapterError(
                "a pattern of the PEFT configuration is no regular expression",
                got=f"{pattern!r}: {error}",
                expected="module names, or regular expressions of them",
            ) from error
    return otherwise
