"""From the numbers that are trained to the factors that a graph takes, and back with their gradients.

A graph computes scaling B' A' and knows of nothing else. With g the amplification, R a core, and F the
frozen factors it is fed A' = [g A; F_A] and B' = [B | F_B], or B' = [B R | F_B]. Of its gradients dA' and dB'
the rows and columns of the frozen part are left out, and the rest are pulled back by the chain rule:
dA = g dA', dB = dB', dR = B^T dB'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from hetlora.adapter import Adapter, LoraFactors, Tensor
from hetlora.errors import NonFiniteValues, SpecMismatch
from hetlora.messages.device import Adaptation
from hetlora.partial_tensors import core_key
from hetlora.plan_adapter import FrozenFactors
from hetlora.tensors import factor_keys, from_tensors, to_tensors

Gradients = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Parametrisation:
    """What of an adapter is trained, and what stands beside it: frozen factors, cores to begin with."""

    adaptation: Adaptation = field(default_factory=Adaptation)
    frozen: FrozenFactors | None = None
    cores: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether both factors are trained alike and alone, as the graphs do by themselves."""
        own = self.adaptation
        alike = own.trained == "both" and own.lora_B_rate == own.amplification == 1
        return alike and self.frozen is None


class TrainedNumbers:
    """The arrays that an optimizer steps, `tensors` by PEFT or core key, within an adapter.

    Raises:
        SpecMismatch: cores are trained, but a module has none of its rank; or frozen factors are of others.
    """

    def __init__(self, adapter: Adapter, how: Parametrisation) -> None:
        self._given, self._how = adapter, how
        for name, own in (how.frozen or {}).items():
            if name not in adapter.factors or _widths(own) != _widths(adapter.factors[name]):
                raise SpecMismatch(f"frozen factors of {name} are not of this adapter's specification")
        if how.adaptation.trained == "core":
            self.tensors = {core_key(name): _core(how, name, rank) for name, rank in adapter.ranks.items()}
        else:
            self.tensors = {
                key: whole.copy() for key, whole in to_tensors(adapter).items() if self._steps(key)
            }

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate of each, over that of the plan."""
        rate = self._how.adaptation.lora_B_rate
        return {key: rate if key.endswith(".lora_B.weight") else 1.0 for key in self.tensors}

    def fed(self, least_rank: int = 1) -> dict[str, Tensor]:
        """The factors of a graph by PEFT key, filled with zeros up to `least_rank`.

        A rank of zeros changes nothing, and its gradients are zero.
        """
        fed = {}
        for name, own in self.factors().items():
            lora_A, lora_B = self._how.adaptation.amplification * own.lora_A, own.lora_B
            if core_key(name) in self.tensors:
                lora_B = lora_B @ self.tensors[core_key(name)]
            if self._how.frozen is not None and name in self._how.frozen:
                beside = self._how.frozen[name]
                lora_A = np.concatenate([lora_A, beside.lora_A])
                lora_B = np.concatenate([lora_B, beside.lora_B], axis=1)
            missing = max(least_rank - len(lora_A), 0)
            key_A, key_B = factor_keys(name)
            fed[key_A] = np.pad(lora_A, ((0, missing), (0, 0)))
            fed[key_B] = np.pad(lora_B, ((0, 0), (0, missing)))
        return fed

    def factors(self) -> dict[str, LoraFactors]:
        """The factors as they stand by module name, finite or not; cores are not in them."""
        whole = {**to_tensors(self._given), **self.tensors}
        return {name: LoraFactors(*(whole[key] for key in factor_keys(name))) for name in self._given.factors}

    def pulled_back(self, gradients: Gradients) -> dict[str, Tensor]:
        """The gradients of `tensors`, given those of `fed()`."""
        pulled = {}
        for name, rank in self._given.ranks.items():
            key_A, key_B = factor_keys(name)
            of_A, of_B = gradients[key_A][:rank], gradients[key_B][:, :rank]
            pulled[key_A] = np.float32(self._how.adaptation.amplification) * of_A
            pulled[key_B] = of_B
            pulled[core_key(name)] = self._given.factors[name].lora_B.T @ of_B
        return {key: pulled[key] for key in self.tensors}

    def adapter(self) -> Adapter:
        """A copy of the adapter as it stands; cores are not in it."""
        whole = to_tensors(self._given)
        own = {key: tensor.copy() for key, tensor in self.tensors.items() if key in whole}
        return from_tensors(self._given.spec, {**whole, **own})

    def cores(self) -> dict[str, Tensor]:
        """A copy of the cores as they stand by module name; none where factors are trained.

        Raises:
            NonFiniteValues: one holds NaN or infinity.
        """
        names = [name for name in self._given.factors if core_key(name) in self.tensors]
        for name in names:
            if not np.isfinite(self.tensors[core_key(name)]).all():
                raise NonFiniteValues(f"core of {name} holds values that are not finite")
        return {name: self.tensors[core_key(name)].copy() for name in names}

    def _steps(self, key: str) -> bool:
        trained = self._how.adaptation.trained
        return trained == "both" or key.endswith(f".{trained}.weight")


def _widths(factors: LoraFactors) -> tuple[int, int]:
    return factors.lora_A.shape[1], factors.lora_B.shape[0]


def _core(how: Parametrisation, name: str, rank: int) -> Tensor:
    got = how.cores[name].shape if name in how.cores else "none"
    if got != (rank, rank):
        raise SpecMismatch(f"core of module {name}", got=got, expected=(rank, rank))
    return how.cores[name].astype(np.float32)
