"""What the caller of an export asks for, checked before anything is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, get_args

from export.labels import parse_labels
from hetlora.errors import ModelNotExportable
from hetlora.manifest import Precision, Recompute, Task

RUNTIMES: Final = ("onnx", "executorch")
# Tasks whose ExecuTorch programs stand.
_EXECUTORCH_TASKS: Final = ("text-classification", "image-classification", "text-generation")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What becomes of a model; `labels` gives the text to embed for each class of text-classification.

    Raises:
        ModelNotExportable: a choice that there is not, or two that do not go together.
    """

    task: Task
    labels: dict[str, str]
    targets: tuple[str, ...]
    last_layers: int | None
    max_rank: int
    scaling: float
    max_tokens: int
    base: Precision
    recompute: Recompute
    runtimes: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_choice("task", self.task, get_args(Task))
        _check_choice("precision of the base weights", self.base, get_args(Precision))
        _check_choice("way of recomputing activations", self.recompute, get_args(Recompute))
        for runtime in self.runtimes or ("",):
            _check_choice("runtime", runtime, RUNTIMES)
        if "executorch" in self.runtimes:
            _check_choice("task for ExecuTorch", self.task, _EXECUTORCH_TASKS)
            _check_choice("precision of the base weights for ExecuTorch", self.base, ("float32",))


def make_recipe(
    *,
    task: str,
    labels: Sequence[str] | Mapping[str, str],
    targets: Sequence[str],
    runtimes: Collection[str],
    **choices: Any,
) -> Recipe:
    """The recipe of `export_bundle`'s arguments; errors as in `Recipe` and `parse_labels`."""
    wants_labels = task == "text-classification"
    if labels and not wants_labels and task in get_args(Task):
        raise ModelNotExportable(
            f"{task} takes no labels", got=list(labels)[:5], expected="labels for text-classification alone"
        )
    return Recipe(
        task=task,  # type: ignore[arg-type]  # checked by the recipe
        labels=parse_labels(labels) if wants_labels else {},
        targets=tuple(targets),
        runtimes=tuple(sorted(set(runtimes), key=[*RUNTIMES, *runtimes].index)),
        **choices,
    )


def _check_choice(what: str, got: str, choices: Sequence[str]) -> None:
    if got not in choices:
        raise ModelNotExportable(f"unknown {what}", got=repr(got), expected=f"one of {', '.join(choices)}")
