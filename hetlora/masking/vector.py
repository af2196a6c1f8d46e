"""The vector that a device masks: its factors as wide as the run, times its weight, and the weight itself.

    v_k = (w_k pad(x_k), w_k)          sum_k v_k = (S, W)          x <- S / W

A rule that is one weighted mean of padded factors is this sum, whatever ranks and weights are; and as each
device applies its own weight, the service need not know it (Bonawitz et al. 2017, section 7.2.1).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter, AdapterSpec, LoraFactors
from hetlora.algebra import delta_norm
from hetlora.messages.masking import Weighing

Vector = NDArray[np.float64]


def size_of(spec: AdapterSpec, rank: int) -> int:
    """How many numbers the vector of a run of this rank has: those of an adapter, and one weight."""
    return spec.parameters_per_rank * rank + 1


def weight_of(weighing: Weighing, adapter: Adapter, example_count: int) -> float:
    """w_k: the Frobenius norm of B A over the model (HetLoRA), the number of examples, or 1."""
    if weighing == "norm":
        return delta_norm(adapter)
    return float(example_count) if weighing == "examples" else 1.0


def joint_vector(adapter: Adapter, rank: int, weight: float) -> Vector:
    """(w pad(x), w), float64 of `size_of`: modules by name, each lora_A before lora_B, row by row."""
    vector = np.zeros(size_of(adapter.spec, rank))
    for name, lora_A, lora_B in _views(vector, adapter.spec, rank):
        own = adapter.factors[name]
        lora_A[: own.rank] = own.lora_A
        lora_B[:, : own.rank] = own.lora_B
    vector *= weight
    vector[-1] = weight
    return vector


def mean_of(vector: Vector, spec: AdapterSpec, rank: int) -> Adapter | None:
    """S / W as an adapter of this rank; None where W is not positive: nobody had any weight.

    Raises:
        NonFiniteValues: a number passes float32.
    """
    weight = float(vector[-1])
    if weight <= 0:
        return None
    with np.errstate(over="ignore"):  # the adapter refuses what is not finite
        factors = {
            name: LoraFactors(lora_A.astype(np.float32), lora_B.astype(np.float32))
            for name, lora_A, lora_B in _views(vector / weight, spec, rank)
        }
    return Adapter(spec, factors)


def _views(vector: Vector, spec: AdapterSpec, rank: int) -> Iterator[tuple[str, Vector, Vector]]:
    """Each module's factors where they lie in a vector: lora_A (rank, in), lora_B (out, rank)."""
    start = 0
    for module in spec.modules:
        middle = start + rank * module.in_features
        end = middle + rank * module.out_features
        lora_A = vector[start:middle].reshape(rank, module.in_features)
        lora_B = vector[middle:end].reshape(module.out_features, rank)
        yield module.name, lora_A, lora_B
        start = end
