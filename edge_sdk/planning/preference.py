"""Which of several bundles a device trains with: the run's own, or a variant of it (docs/adr/0028)."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.planning.planner import RankChoice
from hetlora.manifest import Manifest
from hetlora.messages.device import Offer

Plan = tuple[Manifest, RankChoice | None]  # None: the device cannot train with it, as far as is known


def preferred(plans: Sequence[Plan], max_tokens: int) -> int | None:
    """The place of the plan with the longest texts, of these with the most ranks, of these the first.

    Ranks are counted in all modules that a bundle trains, and tokens up to the `max_tokens` that are asked:
    graphs stamped for more pad the rest. None is the answer if the device can train with no bundle.
    """
    worth = [None if choice is None else _worth(manifest, choice, max_tokens) for manifest, choice in plans]
    best = max((own for own in worth if own is not None), default=None)
    return None if best is None else worth.index(best)


def is_unsurpassed(manifest: Manifest, choice: RankChoice, offer: Offer) -> bool:
    """Whether no other bundle of the offer could give more."""
    longest = min(offer.training.max_tokens, manifest.max_tokens)
    has_all = choice.rank >= min(offer.max_rank, manifest.adapter.max_rank) and not manifest.untrained
    return has_all and choice.max_tokens >= longest


def _worth(manifest: Manifest, choice: RankChoice, max_tokens: int) -> tuple[int, int]:
    return min(choice.max_tokens, max_tokens), choice.rank * len(manifest.trained)
