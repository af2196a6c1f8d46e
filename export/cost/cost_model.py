"""What one training step costs, read off the graph that ONNX Runtime runs; docs/adr/0010-cost-model.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto

from export.cost.liveness import ALIASES, bytes_in, live_while_running
from export.cost.tensor_sizes import (
    NOTHING,
    TERMS,
    Sized,
    Terms,
    body_sizes,
    flag_of,
    sizes_in,
    terms_of,
)
from export.graphs.graph_edit import reads_of, subgraphs
from export.graphs.products import PRODUCTS, is_row_lookup
from export.graphs.shapes import Shape
from hetlora.adapter import AdapterSpec
from hetlora.cost import CostModel, StepCost, StepSize

_FLOAT_BYTES: Final = 4
# The steps for which the moment with the most alive is looked for.
_BATCHES: Final = (1, 2, 4, 8, 16, 32, 64)
_TOKENS: Final = (16, 64, 256, 1024, 4096)
# Moments that add less than this to the peak are left out of the manifest.
_TOLERANCE: Final = 0.01
_CHUNK_ROW: Final = TERMS.index("per_chunk_row")
_TOKEN: Final = TERMS.index("per_token")


def cost_model(
    run: ModelProto, known: Mapping[str, Sized], spec: AdapterSpec, *, most_chunk_rows: int
) -> CostModel:
    """The cost of a step of the graph `run`; `known` tells the sizes of most of its tensors.

    `most_chunk_rows` limits the rows whose logits are made at a time; 0 where they are not made in chunks.
    """
    graph = run.graph
    sizes = sizes_in(graph, known)
    live = np.array(list(live_while_running(graph, sizes)))
    steps = [
        StepSize.of(batch=batch, tokens=tokens, rank=rank, most_chunk_rows=most_chunk_rows)
        for batch, tokens, rank in product(_BATCHES, _TOKENS, (1, spec.max_rank))
    ]
    flops, written = NOTHING.copy(), NOTHING.copy()
    for node, around in _nodes(graph, sizes):
        flops += _of_all_chunks(_flops(node, around))
        if node.op_type not in ALIASES:
            written += _of_all_chunks(sum((bytes_in(around, name) for name in node.output), start=NOTHING))
    return CostModel(
        flops=_step_cost(flops),
        written_bytes=_step_cost(written),
        live_bytes=tuple(_step_cost(moment) for moment in peaks(live, steps)),
        most_chunk_rows=most_chunk_rows,
        graph_nodes=len(graph.node),
        base_weight_bytes=_weights_read_whole(graph),
        adapter_bytes_per_rank=_FLOAT_BYTES * spec.parameters_per_rank,
    )


def peaks(live: NDArray[np.float64], steps: Sequence[StepSize]) -> NDArray[np.float64]:
    """Those rows of `live` (moments, TERMS) that are the largest of all for some step, give or take 1 %."""
    moments = np.unique(live, axis=0)
    taken = moments @ np.array([_multipliers(step) for step in steps]).T
    largest = taken.max(axis=0)
    chosen: list[int] = []
    reached = np.ones(len(steps))
    while (largest > (1 + _TOLERANCE) * reached).any():
        hardest = (largest / reached).argmax()
        chosen.append(int(taken[:, hardest].argmax()))
        reached = np.maximum(reached, taken[chosen[-1]])
    found: NDArray[np.float64] = moments[chosen or [0]]
    return found


def _multipliers(step: StepSize) -> list[int]:
    """What `StepCost.at` multiplies each of TERMS with."""
    units = (StepCost(**{**dict.fromkeys(TERMS, 0), term: 1}) for term in TERMS)
    return [unit.at(step) for unit in units]


def _nodes(graph: GraphProto, sizes: Mapping[str, Sized]) -> Iterator[tuple[NodeProto, Mapping[str, Sized]]]:
    """The nodes that a step runs, each with the sizes around it: without a penalty, its branch is not run."""
    for node in graph.node:
        yield node, sizes
        if node.op_type == "Scan":
            (body,) = subgraphs(node)
            yield from _nodes(body, body_sizes(node, sizes))


def _flops(node: NodeProto, sizes: Mapping[str, Sized]) -> Terms:
    """Two for each number of the output and each term of its sum; only matrix products count."""
    if not {node.output[0], *node.input[:2]} <= sizes.keys():
        return NOTHING
    if node.op_type in PRODUCTS:
        left = sizes[node.input[0]].shape
        summed: Shape = (left[-2] if flag_of(node, "transA") else left[-1],)
    elif node.op_type.endswith("Conv"):
        summed = sizes[node.input[1]].shape[1:]
    else:
        return NOTHING
    numbers = terms_of((*sizes[node.output[0]].shape, *summed))
    return NOTHING if numbers is None else 2 * numbers


def _of_all_chunks(terms: Terms) -> Terms:
    """What is done for each row of a chunk is done, in one chunk or another, for each token."""
    whole = terms.copy()
    whole[_TOKEN] += whole[_CHUNK_ROW]
    whole[_CHUNK_ROW] = 0
    return whole


def _weights_read_whole(graph: GraphProto) -> int:
    """The bytes of the weights' file that a step reads; the few rows of tables are not counted."""
    read: set[str] = set()
    for node in graph.node:
        tables = {node.input[0]} if is_row_lookup(node) else set()
        read |= reads_of(node) - tables
    places = {}
    for tensor in graph.initializer:
        if tensor.name in read and tensor.external_data:
            place = {entry.key: entry.value for entry in tensor.external_data}
            places[place["offset"]] = int(place["length"])
    return sum(places.values())


def _step_cost(terms: Terms) -> StepCost:
    return StepCost(**{name: round(float(value)) for name, value in zip(TERMS, terms, strict=True)})
