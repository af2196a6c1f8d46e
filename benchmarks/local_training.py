"""A client's training in this process: the SDK's own, on ONNX Runtime, without a device folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from edge_sdk.batching.batches import Batching, draw_batches
from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples import Example, ExampleStore
from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.training.local import TrainingResult, train_locally
from edge_sdk.training.parametrisation import Parametrisation
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle, open_bundle
from hetlora.messages.device import TrainingSettings


def train_on(
    examples: Sequence[Example],
    bundle: Bundle,
    received: Adapter,
    parametrisation: Parametrisation,
    training: TrainingSettings,
    rng: np.random.Generator,
) -> TrainingResult:
    """Train an adapter on examples of one client, on one thread.

    Raises:
        TrainingDiverged, NonFiniteValues: see `train_locally`.
    """
    trainer = open_trainer(
        _opened_before, bundle, received, training, threads=1, parametrisation=parametrisation
    )
    with drawn(examples, bundle, training, rng) as batches:
        return train_locally(trainer, batches, training, max_seconds=1e9)


def _opened_before(bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None = None) -> OnnxRuntime:
    """A runtime that clients of the same ranks share: a fifth of a short training went into opening it.

    Nothing of a client stays in it: factors are fed with each batch, and gradients reset after it.
    """
    return _opened(bundle.folder, bundle.digest, tuple(sorted(ranks.items())), threads)


@lru_cache(maxsize=16)
def _opened(
    folder: Path, digest: str, ranks: tuple[tuple[str, int], ...], threads: int | None
) -> OnnxRuntime:
    return OnnxRuntime(open_bundle(folder, verify=False, digest=digest), dict(ranks), threads=threads)


@contextmanager
def drawn(
    examples: Sequence[Example], bundle: Bundle, training: TrainingSettings, rng: np.random.Generator
) -> Iterator[Iterator[Batch]]:
    """Batches of a client's examples without end, as the SDK draws them."""
    encoder = text_encoder(bundle, max_tokens=training.max_tokens)
    collation = TextCollation(bundle.manifest.task, bundle.manifest.labels, encoder)
    with TemporaryDirectory() as folder, ExampleStore(Path(folder) / "examples.sqlite") as store:
        store.put_many(examples)
        yield draw_batches(store, Batching(collation, training.batch_size), rng=rng)
