"""What a round is expected to take of a device: by a bundle's cost model, and by what was measured of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_sdk.units import MIB
from hetlora.cost import CostModel
from hetlora.messages.device import CapabilityReport

# The constants of memory and time were fitted to 104 measured steps, where the peak came out within 9 %
# (docs/adr/0010-cost-model.md); `hetlora bench forecast` tries them on other models.
# Resident size of Python, the SDK's libraries and an opened runtime before they hold a model.
PROCESS_BYTES: Final = 96 * MIB
# What the runtime keeps for each node of an opened graph.
NODE_BYTES: Final = 13 * 1024
# Memory over tensors that are alive: blocks of the allocator, and what kernels hold for a moment.
LIVE_SHARE: Final = 1.15
# The adapter, its gradient, AdamW's two moments, and the copies in which these enter and leave a step.
COPIES_OF_ADAPTER: Final = 6
# What nodes other than matrix products take, as operations of these for each byte that they write.
FLOPS_PER_WRITTEN_BYTE: Final = 10
# Share of the probe's matmul rate that a training step's products reach.
TRAINING_EFFICIENCY: Final = 0.65
# What each core beyond the first adds: not every kernel splits its work, and cores often come in pairs that
# share one arithmetic unit.
EXTRA_CORE_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Correction:
    """What real steps of a bundle took on this device over what was forecast of them.

    `memory` is of the peak, the process's own share included; `seconds` of a step's time; `watts` is what the
    device then drew, None where no sensor tells.
    """

    memory: float = 1.0
    seconds: float = 1.0
    watts: float | None = None


UNCORRECTED: Final = Correction()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One optimizer step: examples of at most so many tokens, in micro-batches of at most so many rows."""

    batch: int
    tokens: int
    rank: int
    micro_batch: int

    @property
    def parts(self) -> tuple[int, ...]:
        """The rows of each micro-batch."""
        whole, rest = divmod(self.batch, self.micro_batch)
        return (self.micro_batch,) * whole + ((rest,) if rest else ())


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a round of `steps` steps is expected to take.

    `download_bytes` and `upload_bytes` are the adapter's; `bundle_bytes` are those of the bundle that the
    device does not have yet. `watts` is None where nobody knows.
    """

    peak_bytes: int
    step_seconds: float
    steps: int
    download_bytes: int
    upload_bytes: int
    bundle_bytes: int = 0
    watts: float | None = None

    @property
    def seconds(self) -> float:
        """Of all steps."""
        return self.steps * self.step_seconds

    @property
    def traffic_bytes(self) -> int:
        """The adapter's, down and up: a bundle comes once, and over whatever network there is."""
        return self.download_bytes + self.upload_bytes

    @property
    def joules(self) -> float | None:
        """Of all steps, of the whole device."""
        return None if self.watts is None else self.watts * self.seconds


def forecast_round(
    cost_model: CostModel,
    step: StepPlan,
    *,
    steps: int,
    flops_per_second: float,
    upload_bytes: int | None = None,
    bundle_bytes: int = 0,
    correction: Correction = UNCORRECTED,
    scores: bool = False,
    proximal: bool = False,
) -> Forecast:
    """What a round of `steps` such steps takes, from the bundle's cost model.

    `upload_bytes` is what an update takes, where it is not all of what is trained, in float32. With `scores`
    the graph that scores lies beside the one that trains, with weights of its own; with
    `proximal` a copy of what training began with.
    """
    graphs = 2 if scores else 1
    adapter_bytes = step.rank * cost_model.adapter_bytes_per_rank
    largest = cost_model.step(batch=step.parts[0], tokens=step.tokens, rank=step.rank)
    peak_bytes = (
        PROCESS_BYTES
        + graphs * (NODE_BYTES * cost_model.graph_nodes + cost_model.base_weight_bytes)
        + round(LIVE_SHARE * cost_model.peak_live_bytes(largest))
        + (COPIES_OF_ADAPTER + proximal) * adapter_bytes
    )
    return Forecast(
        round(correction.memory * peak_bytes),
        correction.seconds * work_of(cost_model, step) / flops_per_second,
        steps,
        adapter_bytes,
        adapter_bytes if upload_bytes is None else upload_bytes,
        bundle_bytes,
        correction.watts,
    )


def work_of(cost_model: CostModel, step: StepPlan) -> int:
    """The operations of one optimizer step, its written bytes counted as such."""
    sizes = [cost_model.step(batch=rows, tokens=step.tokens, rank=step.rank) for rows in step.parts]
    return sum(
        cost_model.flops.at(size) + FLOPS_PER_WRITTEN_BYTE * cost_model.written_bytes.at(size)
        for size in sizes
    )


def training_rate(capabilities: CapabilityReport, threads: int | None) -> float:
    """Operations per second in training, on `threads` of a measured device's cores or, if None, on all.

    A profile given by hand stands for a device that uses all its cores, whatever simulates it.
    """
    cores = capabilities.cores
    if threads is not None and capabilities.source == "measured":
        cores = min(threads, cores)
    one_core = capabilities.matmul_flops_per_second * TRAINING_EFFICIENCY
    return one_core * (1 + EXTRA_CORE_SHARE * (cores - 1))
