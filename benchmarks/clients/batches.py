"""The one batch of a case, as Python's device makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edge_sdk.batching.collation import TextCollation
from edge_sdk.batching.tokens import text_encoder
from edge_sdk.examples.kinds import Example
from edge_sdk.runtimes.base import Batch
from hetlora.bundle import Bundle
from hetlora.messages.device import TrainingSettings


def batch_of(bundle: Bundle, told: Sequence[Mapping[str, str]], settings: TrainingSettings) -> Batch:
    """All examples of `case.json`, cut to the tokens that the settings leave."""
    encoder = text_encoder(bundle, max_tokens=settings.max_tokens)
    collate = TextCollation(bundle.manifest.task, bundle.manifest.labels, encoder)
    return collate([Example(own["text"], own["label"]) for own in told])
