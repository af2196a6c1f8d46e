"""How a run aggregates: one message a rule, named as its paper is, with that paper's constants.

`aggregator_service/aggregation/rules/` computes them; each file there opens with the paper and its steps.
First lines of docstrings, and descriptions of fields, are what `hetlora run rules` tells of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from hetlora.messages.common import Message, PositiveCount

# The least is far below any use, and above what vanishes when it is multiplied with a share of ranks.
Share = Annotated[float, Field(ge=1e-6, le=1)]
Weights = Annotated[
    Literal["examples", "uniform"],
    Field(description="by numbers of examples, which devices claim, or all alike"),
]
FrozenRank = Annotated[
    int,
    Field(
        strict=True,
        ge=1,
        le=1_000_000,
        description="highest rank of the frozen adapter; what passes it is lost",
    ),
]


class Weighted(Message):
    """A rule that weighs updates by their numbers of examples, or all alike."""

    weights: Weights = "examples"


class HetLoraRule(Message):
    """HetLoRA (arXiv 2401.06432): zero-pad, weigh by the norm of B A over the model or of each module."""

    name: Literal["hetlora"] = "hetlora"
    weights: Literal["model", "module"] = Field(
        default="model", description="one weight for each update, or one for each of its modules"
    )


class ZeroPadRule(Weighted):
    """FedAvg of zero-padded factors; at equal ranks FedIT (arXiv 2305.05644)."""

    name: Literal["zero_pad"] = "zero_pad"


class RblaRule(Weighted):
    """RBLA (arXiv 2408.08699): each rank is the mean over those who hold it."""

    name: Literal["rbla"] = "rbla"
    quorum: PositiveCount = Field(default=1, description="a rank with fewer owners stays what it was")
    shrinkage: float = Field(
        default=0.0, ge=0, le=1e6, description="n owners move a rank by n / (n + shrinkage) of the way"
    )


class ReplicationRule(Weighted):
    """Replication padding (Byun, Lee, arXiv 2406.17477): missing ranks are filled with the owners' mean."""

    name: Literal["replication"] = "replication"


class FlexLoraRule(Weighted):
    """FlexLoRA and HLoRA (arXiv 2402.11505, 2503.00813): mean of the products, redistributed by SVD."""

    name: Literal["flexlora"] = "flexlora"


class RaFloraRule(Weighted):
    """raFLoRA (arXiv 2602.13486): the product is averaged by bands of ranks, each over its owners."""

    name: Literal["raflora"] = "raflora"
    levels: tuple[PositiveCount, ...] = Field(
        default=(),
        description="ranks at which bands end; without any, the powers of two up to the run's rank",
        examples=[[1, 2, 4]],
    )


class FloristRule(Weighted):
    """FLoRIST (arXiv 2506.09199): product SVD at the smallest rank that keeps this share of the energy."""

    name: Literal["florist"] = "florist"
    energy: Share = Field(default=0.99, description="share of the squared singular values that is kept")


class FloraRule(Weighted):
    """FLoRA (arXiv 2409.05976): stacked updates are merged into a frozen adapter, and adapters start anew."""

    name: Literal["flora"] = "flora"
    frozen_rank: FrozenRank = 256


class FedExRule(Weighted):
    """FedEx-LoRA (arXiv 2410.09432): mean factors; what they miss of the mean product is frozen."""

    name: Literal["fedex"] = "fedex"
    frozen_rank: FrozenRank = 256


class LoraFairRule(Weighted):
    """LoRA-FAIR (arXiv 2411.14961): mean factors, lora_B corrected towards the mean product."""

    name: Literal["lora_fair"] = "lora_fair"
    penalty: float = Field(
        default=0.01,
        ge=1e-9,
        le=1e6,
        description="what the correction's norm costs against the cosine it gains",
    )


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
    """LoRA-A2 (arXiv 2410.22815): factors take turns, and a device sends the ranks that moved most."""

    name: Literal["lora_a2"] = "lora_a2"
    lora_B_rate: float = Field(
        default=5.0, ge=1e-3, le=1e3, description="learning rate of lora_B over that of lora_A"
    )


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
    every_rounds: PositiveCount = Field(
        default=10, description="rounds between two folds into the frozen adapter"
    )
    frozen_rank: FrozenRank = 256


class FlascRule(Weighted):
    """FLASC (arXiv 2406.05233): sparse down, dense training, sparse change up."""

    name: Literal["flasc"] = "flasc"
    weights: Weights = "uniform"
    download_density: Share = Field(
        default=0.25,
        description="share of the adapter's entries sent to a device at the run's rank, the largest",
    )
    upload_density: Share = Field(
        default=0.25, description="share of the change's entries that it sends back, the largest"
    )


class DeerRule(Weighted):
    """DEeR (arXiv 2410.12926): one factor is trained at a time, so that no deviation arises; equal ranks."""

    name: Literal["deer"] = "deer"


class ResidualExactRule(Weighted):
    """Our own: the global product moves by the weighted changes against what each device was sent."""

    name: Literal["residual_exact"] = "residual_exact"
    server_rate: float = Field(
        default=1.0, ge=1e-6, le=2, description="eta, by which the mean change is multiplied"
    )
    fold: bool = Field(default=False, description="devices also get what their rank cut off, frozen")
    allocate: bool = Field(
        default=False, description="each module has its own rank, from the spectrum of the global product"
    )
    state_rank: PositiveCount | None = Field(
        default=None, description="rank that the server keeps; without one, twice the run's"
    )


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
