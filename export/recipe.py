"""What the caller of an export asks for, checked before anything is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from export.labels import parse_labels
from hetlora.errors import ModelNotExportable
from hetlora.manifest import MAX_TOKENS, Precision, Recompute, Task, has_decoder, takes_labels

RUNTIMES: Final = ("onnx", "executorch", "pytorch", "android", "web")
MIN_TOKENS: Final = 3  # one word between the two special tokens
# So that neither scaling nor its products with weights leave float32; alpha / r is seldom above 64.
_MAX_SCALING: Final = 1e6


@dataclass(frozen=True, slots=True)
class Recipe:
    """What becomes of a model; `make_recipe` checks it.

    `labels` gives the text to embed for each class, by its name, where the task takes labels. ONNX graphs are
    always written, ExecuTorch's programs if `executorch` says so, and PyTorch's files if `pytorch` does.
    """

    task: Task
    labels: dict[str, str]
    targets: tuple[str, ...]
    last_layers: int | None
    trained_layers: int | None
    max_rank: int
    scaling: float
    max_tokens: int
    base: Precision
    recompute: Recompute
    executorch: bool
    pytorch: bool
    android: bool
    web: bool
    xnnpack_transposes: bool


def make_recipe(
    *,
    task: str,
    labels: Sequence[str] | Mapping[str, str],
    targets: Sequence[str],
    base: str,
    recompute: str,
    runtimes: Collection[str],
    xnnpack_transposes: bool,
    **sizes: Any,
) -> Recipe:
    """The recipe of `export_bundle`'s arguments; what depends on the model is checked against it later.

    Raises:
        ModelNotExportable: a choice that there is not, two that do not go together, a number that no model
            fits, or labels as in `parse_labels`.
    """
    wanted = {_choice("runtime", runtime, RUNTIMES) for runtime in runtimes}
    recipe = Recipe(
        task=_choice("task", task, get_args(Task)),
        labels=_labels(task, labels),
        targets=tuple(targets),
        base=_choice("precision of the base weights", base, get_args(Precision)),
        recompute=_choice("way of recomputing activations", recompute, get_args(Recompute)),
        executorch="executorch" in wanted,
        pytorch="pytorch" in wanted,
        android="android" in wanted,
        web="web" in wanted,
        xnnpack_transposes=xnnpack_transposes,
        **sizes,
    )
    _check_range("max_tokens", recipe.max_tokens, MIN_TOKENS, MAX_TOKENS)
    _check_range("scaling", recipe.scaling, 1 / _MAX_SCALING, _MAX_SCALING)
    if recipe.executorch and has_decoder(recipe.task):
        raise ModelNotExportable(
            "no task for ExecuTorch", got=repr(recipe.task), expected="one without a decoder of its own"
        )
    _check_float32(recipe)
    if recipe.trained_layers is not None and (recipe.executorch or recipe.pytorch):
        raise ModelNotExportable(
            "trained_layers are of ONNX's graphs",
            got=", ".join(sorted(wanted)),
            expected="onnx, android or web alone",
        )
    return recipe


def _choice(what: str, got: str, choices: Sequence[Any]) -> Any:
    if got not in choices:
        raise ModelNotExportable(f"unknown {what}", got=repr(got), expected=f"one of {', '.join(choices)}")
    return got


def _check_range(what: str, got: float, least: float, most: float) -> None:
    if not least <= got <= most:
        raise ModelNotExportable(f"{what} is out of range", got=got, expected=f"{least:g} to {most:g}")


def _labels(task: str, labels: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    if takes_labels(task):
        if not labels:
            raise ModelNotExportable(f"{task} needs labels", expected="two or more names")
        return parse_labels(labels)
    if labels:
        raise ModelNotExportable(f"{task} takes no labels", got=list(labels)[:5], expected="none")
    return {}


def _check_float32(recipe: Recipe) -> None:
    """Neither reads quantised weights: copies of them in float32 would be memory that nobody planned."""
    for name, is_wanted in (("ExecuTorch", recipe.executorch), ("PyTorch", recipe.pytorch)):
        if is_wanted and recipe.base != "float32":
            raise ModelNotExportable(
                f"no precision of the base weights for {name}", got=repr(recipe.base), expected="float32"
            )
