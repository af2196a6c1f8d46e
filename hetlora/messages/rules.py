"""How a run aggregates: one message a rule, named as its paper is, with that paper's constants.

`aggregator_service/aggregation/rules/` computes them; each file there opens with the paper and its steps.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hetlora.messages.common import Message, PositiveCount

# The least is far below any use, and above what vanishes when it is multiplied with a share of ranks.
Share = Annotated[float, Field(ge=1e-6, le=1)]
Weights = Literal["examples", "uniform"]


class Weighted(Message):
    """A rule that weighs updates by their numbers of examples, or all alike."""

    weights: Weights = "examples"


class HetLoraRule(Message):
    """HetLoRA (arXiv 2401.06432): zero-pad, weigh by the norm of B A over the model or of each module."""

    name: Literal["hetlora"] = "hetlora"
    weights: Literal["model", "module"] = "model"


class ZeroPadRule(Weighted):
    """FedAvg of zero-padded factors; at equal ranks FedIT (arXiv 2305.05644)."""

    name: Literal["zero_pad"] = "zero_pad"


class RblaRule(Weighted):
    """RBLA (arXiv 2408.08699): each rank is the mean over those who hold it.

    A rank with fewer than `quorum` owners stays what it was; n owners move it by n / (n + `shrinkage`).
    """

    name: Literal["rbla"] = "rbla"
    quorum: PositiveCount = 1
    shrinkage: float = Field(default=0.0, ge=0)


class ReplicationRule(Weighted):
    """Replication padding (Byun, Lee, arXiv 2406.17477): missing ranks are filled with the owners' mean."""

    name: Literal["replication"] = "replication"


class FlexLoraRule(Weighted):
    """FlexLoRA and HLoRA (arXiv 2402.11505, 2503.00813): mean of the products, redistributed by SVD."""

    name: Literal["flexlora"] = "flexlora"


class RaFloraRule(Weighted):
    """raFLoRA (arXiv 2602.13486): the product is averaged by bands of ranks, each over its owners.

    `levels` are the ranks at which bands end; by default the powers of two up to the run's rank.
    """

    name: Literal["raflora"] = "raflora"
    levels: tuple[PositiveCount, ...] = ()


class FloristRule(Weighted):
    """FLoRIST (arXiv 2506.09199): product SVD at the smallest rank that keeps this share of the energy."""

    name: Literal["florist"] = "florist"
    energy: Share = 0.99


class FloraRule(Weighted):
    """FLoRA (arXiv 2409.05976): stacked updates are merged into the base, and adapters start anew.

    What was merged is sent along as a frozen adapter, of rank up to `frozen_rank`.
    """

    name: Literal["flora"] = "flora"
    frozen_rank: PositiveCount = 256


class FedExRule(Weighted):
    """FedEx-LoRA (arXiv 2410.09432): mean factors, and what they miss of the mean product as a residual.

    The residual goes to the frozen adapter, of rank up to `frozen_rank`.
    """

    name: Literal["fedex"] = "fedex"
    frozen_rank: PositiveCount = 256


class LoraFairRule(Weighted):
    """LoRA-FAIR (arXiv 2411.14961): mean factors, lora_B corrected towards the mean product."""

    name: Literal["lora_fair"] = "lora_fair"
    penalty: float = Field(default=0.01, gt=0)


class FfaRule(Weighted):
    """FFA-LoRA (arXiv 2403.12313): lora_A stays as it was initialised, lora_B is averaged over its owners."""

    name: Literal["ffa"] = "ffa"


class RoLoraRule(Weighted):
    """RoLoRA: rounds of lora_B alone and of lora_A alone take turns."""

    name: Literal["rolora"] = "rolora"


class FedSaRule(Weighted):
    """FedSA-LoRA (arXiv 2410.01463): lora_A is shared, lora_B never leaves its device."""

    name: Literal["fedsa"] = "fedsa"


class LoraA2Rule(Weighted):
    """LoRA-A2 (arXiv 2410.22815): factors take turns, and a device sends the ranks that moved most.

    A device at rank r sends r ranks per module in the mean, chosen over the whole model.
    """

    name: Literal["lora_a2"] = "lora_a2"
    lora_B_rate: float = Field(default=5.0, gt=0)


class FedSbRule(Weighted):
    """Fed-SB (arXiv 2502.15436): only an r x r core between frozen factors is trained, and averaged."""

    name: Literal["fed_sb"] = "fed_sb"


class FsLoraRule(Weighted):
    """FSLoRA (arXiv 2501.19389): each device trains a random selection of the global ranks."""

    name: Literal["fslora"] = "fslora"
    weights: Weights = "uniform"


class FedLoruRule(Weighted):
    """FedLoRU (arXiv 2409.12371): FedAvg; every so many rounds B A is folded away, an adapter begins anew."""

    name: Literal["fedloru"] = "fedloru"
    every_rounds: PositiveCount = 10
    frozen_rank: PositiveCount = 256


class FlascRule(Weighted):
    """FLASC (arXiv 2406.05233): sparse down, dense training, sparse change up."""

    name: Literal["flasc"] = "flasc"
    weights: Weights = "uniform"
    download_density: Share = 0.25
    upload_density: Share = 0.25


class DeerRule(Weighted):
    """DEeR (arXiv 2410.12926): one factor is trained at a time, so that no deviation arises; equal ranks."""

    name: Literal["deer"] = "deer"


class ResidualExactRule(Weighted):
    """Our own: the global product moves by the weighted changes against what each device was sent.

    `server_rate` is eta; with `fold` devices also get what their rank cut off, frozen; with `allocate` each
    module has its own rank, from the spectrum of the global product; `state_rank` is the rank that the
    server keeps, by default twice the run's.
    """

    name: Literal["residual_exact"] = "residual_exact"
    server_rate: float = Field(default=1.0, gt=0, le=2)
    fold: bool = False
    allocate: bool = False
    state_rank: PositiveCount | None = None


AnyRule = (
    HetLoraRule
    | ZeroPadRule
    | RblaRule
    | ReplicationRule
    | FlexLoraRule
    | RaFloraRule
    | FloristRule
    | FloraRule
    | FedExRule
    | LoraFairRule
    | FfaRule
    | RoLoraRule
    | FedSaRule
    | LoraA2Rule
    | FedSbRule
    | FsLoraRule
    | FedLoruRule
    | FlascRule
    | DeerRule
    | ResidualExactRule
)


def _named(rule: Any) -> Any:
    """A bare name stands for the rule with its paper's constants."""
    return {"name": rule} if isinstance(rule, str) else rule


RuleSettings = Annotated[AnyRule, Field(discriminator="name"), BeforeValidator(_named)]
