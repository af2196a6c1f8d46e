"""How a run aggregates: one message a rule, named as its paper is, with that paper's constants.

`aggregator_service/aggregation/rules/` computes them; each file there opens with the paper and its steps.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hetlora.messages.common import Identifier, Message, PositiveCount

Share = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Weights = Literal["examples", "uniform"]


class HetLoraRule(Message):
    """HetLoRA (arXiv 2401.06432): zero-pad, weigh by the norm of B A over the model or of each module."""

    name: Literal["hetlora"] = "hetlora"
    weights: Literal["model", "module"] = "model"


class ZeroPadRule(Message):
    """FedAvg of zero-padded factors; at equal ranks FedIT (arXiv 2305.05644)."""

    name: Literal["zero_pad"] = "zero_pad"
    weights: Weights = "examples"


class RblaRule(Message):
    """RBLA (arXiv 2408.08699): each rank is the mean over those who hold it.

    A rank with fewer than `quorum` owners stays what it was; n owners move it by n / (n + `shrinkage`).
    """

    name: Literal["rbla"] = "rbla"
    weights: Weights = "examples"
    quorum: PositiveCount = 1
    shrinkage: float = Field(default=0.0, ge=0)


class ReplicationRule(Message):
    """Replication padding (Byun, Lee, arXiv 2406.17477): missing ranks are filled with the owners' mean."""

    name: Literal["replication"] = "replication"
    weights: Weights = "examples"


class FlexLoraRule(Message):
    """FlexLoRA and HLoRA (arXiv 2402.11505, 2503.00813): mean of the products, redistributed by SVD."""

    name: Literal["flexlora"] = "flexlora"
    weights: Weights = "examples"


class RaFloraRule(Message):
    """raFLoRA (arXiv 2602.13486): the product is averaged by bands of ranks, each over its owners.

    `levels` are the ranks at which bands end; by default the powers of two up to the run's rank.
    """

    name: Literal["raflora"] = "raflora"
    weights: Weights = "examples"
    levels: tuple[PositiveCount, ...] = ()


class FloristRule(Message):
    """FLoRIST (arXiv 2506.09199): product SVD at the smallest rank that keeps this share of the energy."""

    name: Literal["florist"] = "florist"
    weights: Weights = "examples"
    energy: Share = 0.99


class FloraRule(Message):
    """FLoRA (arXiv 2409.05976): stacked updates are merged into the base, and adapters start anew.

    What was merged is sent along as a frozen adapter, of rank up to `frozen_rank`.
    """

    name: Literal["flora"] = "flora"
    weights: Weights = "examples"
    frozen_rank: PositiveCount = 256


class FedExRule(Message):
    """FedEx-LoRA (arXiv 2410.09432): mean factors, and what they miss of the mean product as a residual.

    The residual goes to the frozen adapter, of rank up to `frozen_rank`.
    """

    name: Literal["fedex"] = "fedex"
    weights: Weights = "examples"
    frozen_rank: PositiveCount = 256


class LoraFairRule(Message):
    """LoRA-FAIR (arXiv 2411.14961): mean factors, lora_B corrected towards the mean product."""

    name: Literal["lora_fair"] = "lora_fair"
    weights: Weights = "examples"
    penalty: float = Field(default=0.01, gt=0)


class FfaRule(Message):
    """FFA-LoRA (arXiv 2403.12313): lora_A stays as it was initialised, lora_B is averaged over its owners."""

    name: Literal["ffa"] = "ffa"
    weights: Weights = "examples"


class RoLoraRule(Message):
    """RoLoRA: rounds of lora_B alone and of lora_A alone take turns."""

    name: Literal["rolora"] = "rolora"
    weights: Weights = "examples"


class FedSaRule(Message):
    """FedSA-LoRA (arXiv 2410.01463): lora_A is shared, lora_B never leaves its device."""

    name: Literal["fedsa"] = "fedsa"
    weights: Weights = "examples"


class LoraA2Rule(Message):
    """LoRA-A2 (arXiv 2410.22815): factors take turns, and a device sends the ranks that moved most.

    A device at rank r sends r ranks per module in the mean, chosen over the whole model.
    """

    name: Literal["lora_a2"] = "lora_a2"
    weights: Weights = "examples"
    lora_B_rate: float = Field(default=5.0, gt=0)


class FedSbRule(Message):
    """Fed-SB (arXiv 2502.15436): only an r x r core between frozen factors is trained, and averaged."""

    name: Literal["fed_sb"] = "fed_sb"
    weights: Weights = "examples"


class FsLoraRule(Message):
    """FSLoRA (arXiv 2501.19389): each device trains a random selection of the global ranks."""

    name: Literal["fslora"] = "fslora"
    weights: Weights = "uniform"


class FedLoruRule(Message):
    """FedLoRU (arXiv 2409.12371): FedAvg; every so many rounds B A is folded away, an adapter begins anew."""

    name: Literal["fedloru"] = "fedloru"
    weights: Weights = "examples"
    every_rounds: PositiveCount = 10
    frozen_rank: PositiveCount = 256


class FlascRule(Message):
    """FLASC (arXiv 2406.05233): sparse down, dense training, sparse change up."""

    name: Literal["flasc"] = "flasc"
    weights: Weights = "uniform"
    download_density: Share = 0.25
    upload_density: Share = 0.25


class DeerRule(Message):
    """DEeR (arXiv 2410.12926): one factor is trained at a time, so that no deviation arises; equal ranks."""

    name: Literal["deer"] = "deer"
    weights: Weights = "examples"


class ResidualExactRule(Message):
    """Our own: the global product moves by the weighted changes against what each device was sent.

    `server_rate` is eta; with `fold` devices also get what their rank cut off, frozen; with `allocate` each
    module has its own rank, from the spectrum of the global product; `state_rank` is the rank that the
    server keeps, by default twice the run's.
    """

    name: Literal["residual_exact"] = "residual_exact"
    weights: Weights = "examples"
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


class ServerMomentum(Message):
    """FedAvgM (arXiv 1909.06335): momentum over the change of the aggregate."""

    name: Literal["momentum"] = "momentum"
    learning_rate: float = Field(default=1.0, gt=0)
    momentum: Decay = 0.9


class ServerAdaptive(Message):
    """FedAdagrad, FedAdam and FedYogi (Reddi et al., arXiv 2003.00295, Algorithm 2)."""

    name: Literal["adagrad", "adam", "yogi"]
    learning_rate: float = Field(default=0.01, gt=0)
    beta1: Decay = 0.9
    beta2: Decay = 0.99
    epsilon: float = Field(default=1e-3, gt=0)


ServerOptimizer = Annotated[ServerMomentum | ServerAdaptive, Field(discriminator="name")]


class Defence(Message):
    """What stands between hostile updates and the rule; norms and distances are of changes of products B A.

    - `clip`: every change is cut to `clip_factor` times the median norm of the round, and so are the movement
      of its factors and its example count.
    - `method` screens updates or replaces what they moved; `hostile_share` is the share of hostile updates
      that it is to withstand. With a method every update counts as one example. Krum and the geometric median
      want `clip` beside them under rules that average factors: they see products alone, and a small product
      can have large factors.
    - `max_updates`: methods that compare all updates, all but fltrust, refuse a round of more.
    - `quorum`: a rank that fewer updates hold stays as it was sent; below 3, one wide device can own a tail.
      The trimmed mean and the median want 3 owners in any case.
    - `trusted_device`: its update is what fltrust measures all others by; the operator's own, on clean data.
    """

    method: Literal["none", "krum", "multi_krum", "geometric_median", "fltrust", "trimmed_mean", "median"] = (
        "none"
    )
    clip: bool = False
    clip_factor: float = Field(default=2.0, gt=0)
    hostile_share: float = Field(default=0.2, ge=0, lt=0.5)
    max_updates: PositiveCount = 1024
    quorum: PositiveCount = 1
    trusted_device: Identifier | None = None

    @model_validator(mode="after")
    def _has_whom_it_trusts(self) -> Self:
        if (self.method == "fltrust") != (self.trusted_device is not None):
            raise ValueError("fltrust, and no other method, needs a trusted_device")
        return self
