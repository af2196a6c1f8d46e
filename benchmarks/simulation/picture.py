"""A picture of a simulated campaign: rounds by the hour, and who did the work."""

from __future__ import annotations

from pathlib import Path

from benchmarks.simulation.outcome import Outcome


def draw(outcome: Outcome, path: Path) -> None:
    """Draw rounds over time, updates by rank in each, and each kind's share of fleet and updates."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (time, ranks, kinds) = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    ended = sorted(own.ended_hour for own in outcome.rounds if own.ended_hour is not None and own.accepted)
    time.step(ended, range(1, len(ended) + 1), where="post")
    time.set_xlabel("hours")
    time.set_ylabel("rounds")
    base = [0] * len(outcome.rounds)
    for rank in sorted({rank for own in outcome.rounds for rank in own.ranks}):
        counts = [own.ranks.get(rank, 0) for own in outcome.rounds]
        ranks.bar(range(len(counts)), counts, bottom=base, label=f"rank {rank}", width=1.0)
        base = [below + count for below, count in zip(base, counts, strict=True)]
    ranks.set_xlabel("attempts at a round")
    ranks.set_ylabel("accepted updates")
    ranks.legend(fontsize=8)
    names = [kind.name for kind in outcome.kinds]
    fleet = sum(kind.devices for kind in outcome.kinds)
    updates = max(1, sum(kind.updates for kind in outcome.kinds))
    places = range(len(names))
    kinds.bar([place - 0.2 for place in places], [kind.devices / fleet for kind in outcome.kinds], 0.4)
    kinds.bar([place + 0.2 for place in places], [kind.updates / updates for kind in outcome.kinds], 0.4)
    kinds.set_xticks(list(places), names)
    kinds.legend(["share of the fleet", "share of the updates"], fontsize=8)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
