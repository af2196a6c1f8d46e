"""All that `hetlora bench aggregation` measures, one after the other, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, get_args

from benchmarks.aggregation.crossover import CrossoverRow, crossover
from benchmarks.aggregation.runs import (
    CommitRow,
    FlowerRow,
    StreamRow,
    against_dense,
    against_flower,
    flora_against_dense,
    run_task,
    stream,
)
from benchmarks.gemma_adapters import RANKS, Kind, gemma_spec, write_updates
from benchmarks.harness import peer_python, pinned
from benchmarks.peers.training_step import PACKAGES
from hetlora.cli.output import stderr

FLOWER_VERSION: Final = "flwr==1.41.0"
HEADLINE_RANK: Final = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Ours and Flower run `pairs` times in turn, and commits `commit_pairs` times, as a dense one takes half a
    minute. `cohort` updates, out of `stored` different ones, are aggregated beside Flower in `passes` passes;
    `cohorts` have their products kept as stack and as sketch. `memory` are counts of streamed updates,
    `adapters` the last one; `parallel` are streamed by two workers.
    """

    adapters: int = 100_000
    pairs: int = 3
    commit_pairs: int = 2
    cohort: int = 256
    stored: int = 32
    passes: int = 2
    memory: tuple[int, ...] = (100, 1_000, 10_000)
    parallel: int = 10_000
    hashed: int = 2_000
    clients: int = 50
    cohorts: tuple[int, ...] = (50, 200, 800)
    downlink_ranks: int = 64
    ranks: tuple[int, ...] = RANKS
    kinds: tuple[Kind, ...] = get_args(Kind)

    def quick(self) -> Plan:
        """Enough to see that everything runs; its figures mean little."""
        return replace(
            self,
            adapters=min(self.adapters, 512),
            pairs=1,
            commit_pairs=1,
            cohort=64,
            passes=1,
            memory=(64, 128),
            parallel=512,
            hashed=128,
            clients=8,
            cohorts=(8,),
            downlink_ranks=8,
            ranks=(HEADLINE_RANK,),
            kinds=("decaying",),
        )


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that is measured, one after the other; files go to `work`."""

    plan: Plan
    work: Path
    seed: int

    def flower(self) -> list[FlowerRow]:
        """Both of our rules beside Flower, rank by rank."""
        plan = self.plan
        _tell("preparing Flower")
        # Flower asks for other versions of what both use, such as typer.
        python = peer_python("flower", [*pinned("numpy"), FLOWER_VERSION], constrained=False)
        rows = []
        for rank in plan.ranks:
            updates = self._updates(f"rank-{rank}", [rank] * plan.stored, "random", rank)
            sizes = {"count": plan.cohort, "passes": plan.passes, "pairs": plan.pairs}
            found = against_flower(self.work, updates, python, rank, **sizes)
            for row in found:
                _tell(f"  rank {rank}, {row.rule}: {row.ratio:.2f} times as fast as Flower")
            rows += found
        return rows

    def commits(self) -> list[CommitRow]:
        """Commits of each kind of updates beside the formulas in dense matrices."""
        _tell("preparing PyTorch")
        python = peer_python("torch-peft", pinned(*PACKAGES))
        ranks, rows = self._client_ranks(), []
        for kind in self.plan.kinds:
            updates = self._updates(f"clients-{kind}", ranks, kind, max(RANKS))
            for compare in (against_dense, flora_against_dense):
                row = compare(self.work, updates, python, kind, ranks, pairs=self.plan.commit_pairs)
                _tell(f"  {row.rule}, {kind}: {row.ratio:.1f} times as fast as dense")
                rows.append(row)
        return rows

    def crossovers(self) -> list[CrossoverRow]:
        """FlexLoRA's sum of products as a stack and as a sketch."""
        ranks = self._client_ranks()
        updates = self._updates("clients-decaying", ranks, "decaying", max(RANKS))
        rows = []
        for count in self.plan.cohorts:
            rows.append(crossover(self.work, updates, ranks, count))
            _tell(f"  {count} products: stack {rows[-1].stack_seconds} s, sketch {rows[-1].sketch_seconds} s")
        return rows

    def streams(self) -> list[StreamRow]:
        """Streams of all lengths by one core, one with digests checked, and those of two workers."""
        plan, updates = self.plan, self._mixed()
        rows = []
        for count in sorted({*plan.memory, plan.adapters}):
            rows.append(stream(self.work, updates, count))
            _tell(f"  {count} updates: {rows[-1].adapters_per_second:.0f} a second")
        rows.append(stream(self.work, updates, plan.hashed, hashed=True))
        for engine in ("local", *(["ray"] if find_spec("ray") else [])):
            _tell(f"two workers, {engine}")
            rows.append(stream(self.work, updates, plan.parallel, engine=engine, workers=2))
        return rows

    def limits(self) -> dict[str, float]:
        """What one core can do at most with the same bytes."""
        _tell("limits of the machine")
        return run_task(self.work, "limits", updates=self._mixed(), passes=5).last_json()

    def downlink(self) -> dict[str, Any]:
        """A version cut to many ranks."""
        _tell("downlink")
        return run_task(self.work, "downlink", ranks=self.plan.downlink_ranks).last_json()

    def _client_ranks(self) -> list[int]:
        return [RANKS[number % len(RANKS)] for number in range(self.plan.clients)]

    def _mixed(self) -> Path:
        """Enough different updates that no cache holds them all, ranks in turn."""
        return self._updates("mixed", [*RANKS] * (2 * self.plan.stored // len(RANKS)), "random", max(RANKS))

    def _updates(self, name: str, ranks: Sequence[int], kind: Kind, max_rank: int) -> Path:
        folder = self.work / name
        if not folder.exists():
            _tell(f"writing updates: {name}")
            write_updates(folder, ranks, kind, max_rank=max_rank, seed=self.seed)
        return folder


def figures_of(
    plan: Plan,
    flower: Sequence[FlowerRow],
    commits: Sequence[CommitRow],
    crossovers: Sequence[CrossoverRow],
    streams: Sequence[StreamRow],
    limits: Mapping[str, float],
    downlink: Mapping[str, Any],
) -> dict[str, Any]:
    """The headlines, and below them the rows that they come from."""
    ratios = {row.rule: row.ratio for row in flower if row.rank == HEADLINE_RANK}
    alone = [row for row in streams if row.engine == "local" and row.workers == 1 and not row.hashed]
    longest = max(alone, key=lambda row: row.count)
    ray = next((row for row in streams if row.engine == "ray"), None)
    hashed = next(row for row in streams if row.hashed)
    svds = {row.kind: row.ratio for row in commits if row.rule == "flexlora"}
    return {
        "ratio_to_flower": ratios.get("zero_pad"),  # the same mean on both sides; None if it was left out
        "ratio_to_flower_by_hetlora": ratios.get("hetlora"),
        "svd_ratio_to_dense": min(svds.values()),
        "svd_ratio_to_dense_by_kind": svds,
        "flora_ratio_to_dense_by_kind": {row.kind: row.ratio for row in commits if row.rule == "flora"},
        "adapters_per_second": longest.adapters_per_second,
        "adapters_per_second_with_digests": hashed.adapters_per_second,
        "peak_rss_bytes_by_count": {str(row.count): row.peak_rss_bytes for row in alone},
        "fraction_of_limit": round(longest.bytes_per_second / limits["memory_bytes_per_second"], 3),
        "ray_seconds_for_longest_stream": longest.count / ray.adapters_per_second if ray else None,
        "limits": {name: round(value) for name, value in limits.items()},
        "downlink": dict(downlink),
        "model": {
            "modules": len(gemma_spec(max(RANKS)).modules),
            "adapter_bytes_per_rank": 4 * gemma_spec(max(RANKS)).parameters_per_rank,
        },
        "plan": asdict(plan),
        "flower": {"version": FLOWER_VERSION, "rows": [asdict(row) for row in flower]},
        "dense": [asdict(row) for row in commits],
        "crossovers": [asdict(row) for row in crossovers],
        "streams": [asdict(row) for row in streams],
    }


def _tell(progress: str) -> None:
    stderr.print(progress, style="dim", markup=False)
