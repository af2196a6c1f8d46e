"""Rounds under every `Adaptation` as literal bytes: what a plan sends, five steps, and what goes back.

    python tests/adaptation_cases.py     write tests/contract/adaptations.json

The gradients are given, as multiples of 1/8, for what a graph is fed: frozen ranks are counted in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from training_cases import ADAMW, NO_PENALTY, SPEC, STEPS, eighths, factors_of

from edge_sdk.runtimes.base import Batch, Evaluation, Factors
from edge_sdk.session.plans import Assigned
from edge_sdk.training.error_feedback import contract_with_feedback
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.private_factors import private_factors_to_bytes
from edge_sdk.training.trainer import Trainer
from hetlora.adapter import Adapter, Tensor
from hetlora.manifest import Manifest, TensorInput
from hetlora.messages.device import Adaptation, TrainingSettings
from hetlora.partial import contract
from hetlora.plan_adapter import frozen_from_bytes, sent_from_bytes, sent_tensors
from hetlora.stored_tensors import tensors_to_bytes
from hetlora.tensors import factor_keys, to_tensors

FILE: Final = Path(__file__).parent / "contract" / "adaptations.json"
SGD: Final = NO_PENALTY | {"optimizer": "sgd", "learning_rate": 0.125}
PENALTY: Final = {"pruning_decay": 0.7, "pruning_penalty": 0.5}

# Name, adaptation, settings beside the steps, rank by module, rank of the frozen factors by module.
CASES: Final[tuple[tuple[str, dict[str, Any], dict[str, Any], dict[str, int], dict[str, int]], ...]] = (
    ("lora_A alone, under the penalty", {"trained": "lora_A"}, PENALTY, {"h.0.k": 2, "h.0.q": 3}, {}),
    (
        "lora_B alone, rounded, what is left out kept",
        {"trained": "lora_B", "upload_precision": "int8", "error_feedback": True},
        NO_PENALTY,
        {"h.0.k": 1, "h.0.q": 2},
        {},
    ),
    ("a private lora_B", {"private_lora_B": True}, NO_PENALTY, {"h.0.k": 2, "h.0.q": 2}, {}),
    ("lora_B learns faster", {"lora_B_rate": 5.0}, SGD, {"h.0.k": 2, "h.0.q": 1}, {}),
    (
        "ranks of lora_B that moved most",
        {"trained": "lora_B", "selected_ranks": 3, "lora_B_rate": 2.0},
        SGD,
        {"h.0.k": 3, "h.0.q": 3},
        {},
    ),
    (
        "selected ranks, rounded",
        {"selected_ranks": 2, "upload_precision": "float16"},
        NO_PENALTY,
        {"h.0.k": 2, "h.0.q": 3},
        {},
    ),
    ("a quarter of the entries", {"upload_density": 0.25}, NO_PENALTY, {"h.0.k": 2, "h.0.q": 2}, {}),
    ("amplified", {"amplification": 2.5}, SGD, {"h.0.k": 2, "h.0.q": 1}, {}),
    ("beside frozen factors", {}, PENALTY, {"h.0.k": 1, "h.0.q": 2}, {"h.0.k": 4, "h.0.q": 0}),
    (
        "amplified, beside frozen factors, and a module of rank 0",
        {"amplification": 0.5, "trained": "lora_B"},
        SGD,
        {"h.0.k": 0, "h.0.q": 2},
        {"h.0.k": 2, "h.0.q": 1},
    ),
    ("cores", {"trained": "core"}, PENALTY, {"h.0.k": 2, "h.0.q": 2}, {"h.0.k": 1, "h.0.q": 1}),
)


class GivenGradients:
    """A runtime that answers gradients out of a list, and notes what it was fed."""

    most_rows = None

    def __init__(self, steps: list[dict[str, Any]]) -> None:
        self._steps = iter(steps)

    def gradients(self, batch: Batch, factors: Factors) -> tuple[float, dict[str, Tensor]]:
        step = next(self._steps)
        step["fed"] = {key: _hex(own) for key, own in factors.items()}
        return step["task_loss"], {
            key: np.float32(step["gradients"][key]).reshape(own.shape) for key, own in factors.items()
        }

    def evaluate(self, batch: Batch, factors: Factors) -> Evaluation:
        raise AssertionError("nothing is scored")


def adaptation_cases() -> dict[str, Any]:
    """What the file holds."""
    rng = np.random.default_rng(11)
    return {"cases": [_case(rng, *case) for case in CASES]}


def _case(
    rng: np.random.Generator,
    name: str,
    asked: Mapping[str, Any],
    options: Mapping[str, Any],
    ranks: Mapping[str, int],
    frozen_ranks: Mapping[str, int],
) -> dict[str, Any]:
    adaptation = Adaptation.model_validate(asked)
    settings = TrainingSettings(steps=STEPS, **options)
    sent, frozen = _sent(rng, adaptation, ranks), _frozen(rng, frozen_ranks)
    read = sent_from_bytes(sent, SPEC)
    how = Parametrisation(adaptation, None if frozen is None else frozen_from_bytes(frozen, SPEC), read.cores)
    assigned = Assigned(read.adapter, how)
    steps = [
        {"task_loss": float(rng.integers(4, 40)) / 8, "gradients": _gradients(rng, assigned)}
        for _ in range(STEPS)
    ]
    trainer = _trainer(steps, assigned, settings)
    for step in steps:
        step["loss"] = trainer.step({"labels": np.zeros(1, np.int64)})
    return {
        "name": name,
        "adaptation": json.loads(adaptation.model_dump_json()),
        "settings": json.loads(settings.model_dump_json()),
        "sent": sent.hex(),
        "frozen": None if frozen is None else frozen.hex(),
        "steps": steps,
        **_delivered(trainer, assigned),
    }


def _sent(rng: np.random.Generator, adaptation: Adaptation, ranks: Mapping[str, int]) -> bytes:
    adapter = Adapter(
        SPEC, {module.name: factors_of(rng, module, ranks[module.name]) for module in SPEC.modules}
    )
    cores = (
        {name: eighths(rng, (rank, rank)) for name, rank in ranks.items()}
        if adaptation.trained == "core"
        else {}
    )
    return tensors_to_bytes(sent_tensors(adapter, cores))


def _frozen(rng: np.random.Generator, ranks: Mapping[str, int]) -> bytes | None:
    if not ranks:
        return None
    tensors = {}
    for module in SPEC.modules:
        factors = factors_of(rng, module, ranks[module.name])
        tensors.update(zip(factor_keys(module.name), (factors.lora_A, factors.lora_B), strict=True))
    return tensors_to_bytes(tensors)


def _gradients(rng: np.random.Generator, assigned: Assigned) -> dict[str, list[float]]:
    ranks = assigned.how.ranks(assigned.received)
    gradients = {}
    for module in SPEC.modules:
        key_A, key_B = factor_keys(module.name)
        rank = ranks[module.name]
        gradients[key_A] = eighths(rng, (rank, module.in_features)).ravel().tolist()
        gradients[key_B] = eighths(rng, (module.out_features, rank)).ravel().tolist()
    return gradients


def _trainer(steps: list[dict[str, Any]], assigned: Assigned, settings: TrainingSettings) -> Trainer:
    manifest = Manifest.model_construct(
        task="text-classification",
        max_tokens=8,
        adapter=SPEC,
        untrained=(),
        fixed_rank=None,
        optimizer=ADAMW,
        inputs=(TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
    )
    return Trainer(GivenGradients(steps), assigned.received, manifest, settings, assigned.how)


def _delivered(trainer: Trainer, assigned: Assigned) -> dict[str, Any]:
    adapter, adaptation = trainer.adapter(), assigned.how.adaptation
    errors = None
    if adaptation.error_feedback:
        update, left_out = contract_with_feedback(adapter, adaptation, assigned.received, {})
        errors = tensors_to_bytes(left_out).hex()
    else:
        update = contract(adapter, adaptation, assigned.received, trainer.cores())
    return {
        "trained": {key: _hex(own) for key, own in to_tensors(adapter).items()},
        "update": update.hex(),
        "errors": errors,
        "private": private_factors_to_bytes(adapter).hex() if adaptation.private_lora_B else None,
    }


def written(told: Mapping[str, Any]) -> str:
    """The text of the file: a line for each case."""
    return '{"cases": [\n' + ",\n".join(map(json.dumps, told["cases"])) + "\n]}\n"


def _hex(tensor: Tensor) -> str:
    return tensor.astype("<f4").tobytes().hex()


if __name__ == "__main__":
    FILE.write_text(written(adaptation_cases()))
