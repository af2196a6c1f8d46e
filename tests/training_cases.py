"""Steps of the host's optimizers as literal numbers, which every client's trainer has to take.

    python tests/training_cases.py     write tests/contract/training_steps.json

The gradients are given, as multiples of 1/8, so that their norm is exact in whatever order it is summed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec, Tensor
from hetlora.manifest import Manifest, OptimizerInfo, TensorInput
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import to_tensors

FILE: Final = Path(__file__).parent / "contract" / "training_steps.json"
STEPS: Final = 5
SPEC: Final = AdapterSpec((ModuleSpec("h.0.k", 3, 4), ModuleSpec("h.0.q", 4, 3)), scaling=2.0, max_rank=3)
ADAMW: Final = OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0)
DECAYING: Final = ADAMW.model_copy(update={"beta2": 0.98, "epsilon": 1e-6, "weight_decay": 0.01})
NO_PENALTY: Final = {"pruning_decay": 1.0, "pruning_penalty": 0.0}

# Name, settings beside the steps, constants of AdamW, rank by module, modules that are not trained.
CASES: Final[tuple[tuple[str, dict[str, Any], OptimizerInfo, dict[str, int], tuple[str, ...]], ...]] = (
    ("adamw", NO_PENALTY, ADAMW, {"h.0.k": 1, "h.0.q": 3}, ()),
    (
        "adamw with decay, warm-up and cosine",
        NO_PENALTY | {"learning_rate": 0.02, "warm_up_steps": 2, "schedule": "cosine"},
        DECAYING,
        {"h.0.k": 2, "h.0.q": 2},
        ("h.0.k",),
    ),
    (
        "sgd with momentum, falling",
        NO_PENALTY | {"optimizer": "sgd", "momentum": 0.75, "learning_rate": 0.1, "schedule": "linear"},
        DECAYING,
        {"h.0.k": 2, "h.0.q": 3},
        (),
    ),
    ("the penalty", {"pruning_decay": 0.7, "pruning_penalty": 0.5}, ADAMW, {"h.0.k": 2, "h.0.q": 3}, ()),
    (
        "FedProx, and a module of rank 0",
        NO_PENALTY | {"proximal": 0.25, "learning_rate": 0.1},
        ADAMW,
        {"h.0.k": 0, "h.0.q": 2},
        (),
    ),
    (
        "clipped gradients",
        NO_PENALTY | {"optimizer": "sgd", "learning_rate": 0.5, "max_gradient_norm": 1.5},
        ADAMW,
        {"h.0.k": 1, "h.0.q": 1},
        (),
    ),
)


class GivenGradients:
    """A runtime that answers losses and gradients out of a list."""

    most_rows = None

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self._steps = iter(steps)

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        step = next(self._steps)
        given = {key: np.float32(numbers) for key, numbers in step["gradients"].items()}
        zeros = {key: np.zeros_like(own) for key, own in factors.items()}
        return step["task_loss"], {key: given.get(key, own).reshape(own.shape) for key, own in zeros.items()}

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        raise AssertionError("nothing is scored")


def training_cases() -> dict[str, Any]:
    """What the file holds."""
    rng = np.random.default_rng(7)
    return {"cases": [_case(rng, *case) for case in CASES]}


def _case(
    rng: np.random.Generator,
    name: str,
    options: dict[str, Any],
    constants: OptimizerInfo,
    ranks: dict[str, int],
    untrained: tuple[str, ...],
) -> dict[str, Any]:
    settings = TrainingSettings(steps=STEPS, **options)
    adapter = Adapter(
        SPEC, {module.name: factors_of(rng, module, ranks[module.name]) for module in SPEC.modules}
    )
    begun = to_tensors(adapter)
    trained = [key for key in begun if not any(f".{name}." in key for name in untrained)]
    steps: list[dict[str, Any]] = [
        {
            "task_loss": float(rng.integers(4, 40)) / 8,
            "gradients": {key: eighths(rng, begun[key].shape).ravel().tolist() for key in trained},
        }
        for _ in range(STEPS)
    ]
    trainer = Trainer(GivenGradients(steps), adapter, _manifest(constants, untrained), settings)
    for step in steps:
        step["loss"] = trainer.step({"labels": np.zeros(1, np.int64)})
        after = to_tensors(trainer.adapter())
        step["factors"] = {key: after[key].astype("<f4").tobytes().hex() for key in trained}
    return {
        "name": name,
        "settings": json.loads(settings.model_dump_json()),
        "constants": constants.model_dump(exclude={"name"}),
        "untrained": list(untrained),
        "factors": {
            key: {"shape": list(own.shape), "numbers": own.ravel().tolist()} for key, own in begun.items()
        },
        "steps": steps,
    }


def _manifest(constants: OptimizerInfo, untrained: tuple[str, ...]) -> Manifest:
    """Of a bundle that has no files: what a trainer reads of it."""
    return Manifest.model_construct(
        task="text-classification",
        max_tokens=8,
        adapter=SPEC,
        untrained=untrained,
        fixed_rank=None,
        optimizer=constants,
        inputs=(TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
    )


def factors_of(rng: np.random.Generator, module: ModuleSpec, rank: int) -> LoraFactors:
    """Factors of one module, multiples of 1/8."""
    return LoraFactors(eighths(rng, (rank, module.in_features)), eighths(rng, (module.out_features, rank)))


def eighths(rng: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    """Multiples of 1/8 from -2 to 2."""
    return (rng.integers(-16, 17, shape) / 8).astype(np.float32)


if __name__ == "__main__":
    FILE.write_text(json.dumps(training_cases(), indent=1) + "\n")
