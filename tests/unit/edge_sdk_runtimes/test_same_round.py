"""One round on ONNX Runtime, ExecuTorch and PyTorch: the same examples and seed give the same update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from parity import trained_adapter
from tiny_model import WORDS

from edge_sdk.batching.batches import batching_of, draw_batches
from edge_sdk.examples import Example, ExampleStore, TextExample
from edge_sdk.runtimes import RUNTIMES, runtime_named
from edge_sdk.training.local import train_locally
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import to_tensors

# Lowering a model of two layers takes a minute, and several on a machine that is busy.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS: Final = 6
LEARNING_RATE: Final = 1e-3
# More than ExecuTorch's programs take at a time: there a batch goes through in two parts.
BATCH_SIZE: Final = 12
RANKS: Final = (4, 1, 3)  # go round over the modules
SEED: Final = 7

# Each is some ten times the largest difference seen: 1e-6, 5e-6 and 3e-5 of what it is compared with.
# A loss is a mean of sums in float32 around 3, whose order is a runtime's own; on top comes what the steps
# before it differ by.
LOSS_TOLERANCE: Final = 1e-5
# Of how far training moved a module's B A, in Frobenius norm. A gradient is rounded at 1e-6 of its largest
# entry.
UPDATE_TOLERANCE: Final = 5e-5
# Of a factor's entry, over the most that AdamW moves one: the learning rate in each step. It divides every
# gradient by its own size, so that rounding counts for as much in a small entry as in a large one.
FACTOR_TOLERANCE: Final = 4e-4

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "adamw": {},
    "with penalty": {"pruning_decay": 0.5, "pruning_penalty": 0.05},
    "all that a run may ask": {
        "pruning_decay": 0.5,
        "pruning_penalty": 0.05,
        "proximal": 10.0,
        "max_gradient_norm": 0.1,
        "schedule": "cosine",
        "warm_up_steps": 2,
    },
    "sgd": {"optimizer": "sgd", "momentum": 0.9, "learning_rate": 0.1},
}


@dataclass(frozen=True, slots=True)
class Round:
    """What one runtime makes of a round."""

    losses: list[float]
    adapter: Adapter


@pytest.fixture(scope="module", params=["bert", "llama"])
def bundle(request: pytest.FixtureRequest, executorch_case: Callable[[str], tuple[Path, Bundle]]) -> Bundle:
    """A classifier, and a causal language model."""
    return executorch_case(request.param)[1]


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> ExampleStore:
    """Thirty texts of two to seven words; those of a classifier carry the label of their first word."""
    rng = np.random.default_rng(SEED)
    texts = [" ".join(rng.choice(WORDS, rng.integers(2, 8))) for _ in range(30)]
    store = ExampleStore(tmp_path / "examples.sqlite")
    labels = bundle.manifest.labels
    for text in texts:
        label = labels[WORDS.index(text.split()[0]) % len(labels)] if labels else None
        store.put_many([TextExample(text) if label is None else Example(text, label)])
    return store


def _round(name: str, bundle: Bundle, begun: Adapter, store: ExampleStore, **changes: Any) -> Round:
    settings = TrainingSettings(
        **{
            "steps": STEPS,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "max_tokens": bundle.manifest.max_tokens,
            "pruning_decay": 1.0,
            "pruning_penalty": 0.0,
            **changes,
        }
    )
    batching = batching_of(bundle, settings)
    batches = draw_batches(batching.read(store), batching, rng=np.random.default_rng(SEED))
    losses: list[float] = []
    trainer = open_trainer(runtime_named(name), bundle, begun, settings, threads=1)
    result = train_locally(
        trainer, batches, settings, max_seconds=600, on_step=lambda step, loss: losses.append(loss)
    )
    assert result.steps == STEPS
    return Round(losses, result.adapter)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_same_round_gives_the_same_update_on_every_runtime(
    settings: dict[str, Any], bundle: Bundle, store: ExampleStore
) -> None:
    begun = trained_adapter(bundle.manifest.adapter, RANKS)
    reference, *others = (_round(name, bundle, begun, store, **settings) for name in reversed(RUNTIMES))
    assert len(others) == 2
    farthest = STEPS * settings.get("learning_rate", LEARNING_RATE)
    for other in others:
        assert np.abs(np.subtract(other.losses, reference.losses)).max() <= LOSS_TOLERANCE
        assert _worst_entry(other.adapter, reference.adapter) <= FACTOR_TOLERANCE * farthest
        assert _worst_module(other.adapter, reference.adapter, begun) <= UPDATE_TOLERANCE


def _worst_entry(one: Adapter, other: Adapter) -> float:
    theirs = to_tensors(other)
    return max(float(np.abs(own - theirs[key]).max()) for key, own in to_tensors(one).items())


def _worst_module(one: Adapter, other: Adapter, begun: Adapter) -> float:
    """Of all modules, the largest distance of the two B A over how far the other moved."""
    return max(
        float(np.linalg.norm(_product(one, name) - _product(other, name)))
        / float(np.linalg.norm(_product(other, name) - _product(begun, name)))
        for name in begun.factors
    )


def _product(adapter: Adapter, name: str) -> np.ndarray:
    factors = adapter.factors[name]
    return factors.lora_B.astype(np.float64) @ factors.lora_A.astype(np.float64)
