"""Variants of a bundle: the same adapter of the same model, at another cost (docs/adr/0028)."""

from __future__ import annotations

from typing import Any

from hetlora.errors import VariantMismatch
from hetlora.manifest import Manifest


def check_variant(own: Manifest, variant: Manifest) -> None:
    """Whether an update trained with a variant means what one trained with the run's own bundle does.

    Raises:
        VariantMismatch: it does not; the message names the fields.
    """
    expected, got = _meaning_of(own), _meaning_of(variant)
    differing = [name for name, value in expected.items() if got[name] != value]
    if differing:
        raise VariantMismatch(
            "a variant is of another bundle than the run's",
            got=f"other {', '.join(differing)}",
            expected="no difference but in what training costs",
        )


def _meaning_of(manifest: Manifest) -> dict[str, Any]:
    tokenizer = manifest.graphs.tokenizer
    return {
        "task": manifest.task,
        "labels": manifest.labels,
        "adapter": manifest.adapter,
        "base_model": manifest.base_model.sha256,  # of the weights as they were before any rounding
        "tokenizer": None if tokenizer is None else manifest.files[tokenizer].sha256,
        "image": manifest.image,
        "generation": manifest.generation,
        "optimizer": manifest.optimizer,
    }
