"""A bundle whose costs can be summed up by hand."""

from __future__ import annotations

from fake_bundle import tiny_files, tiny_manifest

from edge_sdk.planning.forecast import StepPlan
from hetlora.adapter import AdapterSpec, ModuleSpec
from hetlora.cost import CostModel, StepCost
from hetlora.manifest import Manifest

MB = 1_000_000

# Per token: 1 MB alive at rank 0 and 0.1 MB more per rank; 10 MFLOP and 1 MFLOP more per rank.
COSTS = CostModel(
    flops=StepCost(per_token=10 * MB, per_token_per_rank=MB),
    written_bytes=StepCost(),
    live_bytes=(StepCost(per_token=MB, per_token_per_rank=MB // 10),),
    most_chunk_rows=0,
    graph_nodes=0,
    base_weight_bytes=50 * MB,
    adapter_bytes_per_rank=2 * MB,
)
SPEC_32 = AdapterSpec((ModuleSpec("query", 64, 64),), scaling=1.0, max_rank=32)
MANIFEST: Manifest = tiny_manifest(tiny_files()).model_copy(
    update={"cost_model": COSTS, "adapter": SPEC_32, "max_tokens": 64}
)


def step_of(rank: int, rows: int = 4) -> StepPlan:
    """A step of 4 texts of 8 tokens."""
    return StepPlan(batch=4, tokens=8, rank=rank, micro_batch=rows)
