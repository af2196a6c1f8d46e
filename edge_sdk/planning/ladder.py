"""The sizes that a device chooses from: ranks, micro-batches, lengths of texts."""

from __future__ import annotations

from hetlora.errors import RankOutOfRange
from hetlora.manifest import Manifest
from hetlora.messages.device import Offer


def ladder(min_rank: int, max_rank: int) -> list[int]:
    """The ranks a device chooses from: both limits, and the powers of two between them.

    Few distinct ranks, so that devices share one truncated adapter each, and steps wide enough that the noise
    of a probe does not move a device up and down. Self-pruning lowers `max_rank` one by one: that limit is
    itself on the ladder, so a device at the top keeps what pruning left it.

    Raises:
        RankOutOfRange: the limits leave no rank between them.
    """
    if not 1 <= min_rank <= max_rank:
        raise RankOutOfRange("limits of a rank", got=f"{min_rank} to {max_rank}", expected="1 <= min <= max")
    powers = (2**exponent for exponent in range(max_rank.bit_length()))
    return sorted({min_rank, max_rank, *(rank for rank in powers if min_rank < rank < max_rank)})


def ranks_of(manifest: Manifest, offer: Offer) -> list[int]:
    """The ranks of an offer that a bundle can be trained at, the lowest first.

    Raises:
        RankOutOfRange: the offer leaves no rank, or not the one that the bundle is stamped for.
    """
    ranks = ladder(offer.min_rank, min(offer.max_rank, manifest.adapter.max_rank))
    if manifest.fixed_rank is None:
        return ranks
    if not ranks[0] <= manifest.fixed_rank <= ranks[-1]:
        raise RankOutOfRange(
            "the bundle is stamped for one rank, which the offer does not allow",
            got=manifest.fixed_rank,
            expected=f"{ranks[0]} to {ranks[-1]}",
        )
    return [manifest.fixed_rank]


def rows_at_a_time(batch: int) -> list[int]:
    """Rows to take at a time of a batch, the most first: each the fewest for its number of parts.

    So 16 rows go as 16, 8, 6 (in three parts), 4, 3, 2 or 1.
    """
    return sorted({-(-batch // parts) for parts in range(1, batch + 1)}, reverse=True)


def lengths(most: int, least: int) -> list[int]:
    """Tokens of a text, the most first: halved as often as `least` allows, and that itself."""
    halves = [most]
    while halves[-1] // 2 > least:
        halves.append(halves[-1] // 2)
    return halves if least >= halves[-1] else [*halves, least]
