"""Which of several bundles a device trains with: the run's own, or a variant of it (docs/adr/0028)."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.planning.planner import RankChoice
from hetlora.manifest import Manifest
from hetlora.messages.device import Offer


def preferred(choices: Sequence[RankChoice | None]) -> int | None:
    """The place of the choice with the longest texts, of these with the highest rank, of these the first.

    None is a bundle that the device cannot train with, and the answer if it can with none.
    """
    worth = [None if choice is None else (choice.max_tokens, choice.rank) for choice in choices]
    best = max((own for own in worth if own is not None), default=None)
    return None if best is None else worth.index(best)


def is_unsurpassed(choice: RankChoice, offer: Offer, manifest: Manifest) -> bool:
    """Whether no variant could give more than this choice with the run's own bundle or one before."""
    longest = min(offer.training.max_tokens, manifest.max_tokens)
    return choice.max_tokens >= longest and choice.rank >= min(offer.max_rank, manifest.adapter.max_rank)
