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

from edge_sdk.training.flat_tensors import FlatTensors
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

    def ranks(self, adapter: Adapter) -> dict[str, int]:
        """The ranks by module name of what a graph is fed for an adapter: frozen ones are counted in."""
        frozen = self.frozen or {}
        return {
            name: rank + (frozen[name].rank if name in frozen else 0) for name, rank in adapter.ranks.items()
        }


class TrainedNumbers:
    """The arrays that an optimizer steps, `flat.tensors` by PEFT or core key, within an adapter.

    Attributes:
        factors: the adapter's by module name, always as they stand, finite or not; cores are not in them.

    Raises:
        SpecMismatch: cores are trained, but a module has none of its rank; or frozen factors are of others.
    """

    def __init__(self, adapter: Adapter, how: Parametrisation) -> None:
        self._given, self._how = adapter, how
        for name, own in (how.frozen or {}).items():
            if name not in adapter.factors or _widths(own) != _widths(adapter.factors[name]):
                raise SpecMismatch(f"frozen factors of {name} are not of this adapter's specification")
        if how.adaptation.trained == "core":
            begun = {core_key(name): _core(how, name, rank) for name, rank in adapter.ranks.items()}
        else:
            whole = to_tensors(adapter)
            begun = {key: whole[key] for key in sorted(whole, key=_is_second) if self._steps(key)}
        self.flat = FlatTensors.holding(begun)
        self.tensors = self.flat.tensors
        # Views of what is stepped, made once: to make and check them anew took a small model 2 % of a step.
        self._whole = {**to_tensors(adapter), **self.tensors}
        self.factors: Mapping[str, LoraFactors] = {
            name: LoraFactors(*(self._whole[key] for key in factor_keys(name))) for name in adapter.factors
        }

    @property
    def rates(self) -> list[tuple[slice, float]]:
        """Which of `flat.numbers` learn at which rate, over that of the plan."""
        size = self.flat.numbers.size
        first = size - sum(own.size for key, own in self.tensors.items() if _is_second(key))
        return [(slice(0, first), 1.0), (slice(first, size), self._how.adaptation.lora_B_rate)]

    def fed(self) -> dict[str, Tensor]:
        """The factors that the model stands under, by PEFT key: they themselves if nothing acts on them."""
        if self._is_plain:
            return dict(self._whole)
        fed: dict[str, Tensor] = {}
        amplification = self._how.adaptation.amplification
        for name, own in self.factors.items():
            lora_A, lora_B = own.lora_A, own.lora_B
            if amplification != 1:
                lora_A = amplification * lora_A
            if core_key(name) in self.tensors:
                lora_B = lora_B @ self.tensors[core_key(name)]
            if self._how.frozen is not None and name in self._how.frozen:
                beside = self._how.frozen[name]
                lora_A = np.concatenate([lora_A, beside.lora_A])
                lora_B = np.concatenate([lora_B, beside.lora_B], axis=1)
            fed.update(zip(factor_keys(name), (lora_A, lora_B), strict=True))
        return fed

    def pulled_back(self, gradients: Gradients) -> dict[str, Tensor]:
        """The gradients of `tensors`, given those of `fed()`; views of these where they are the same."""
        if self._is_plain:
            return {key: gradients[key] for key in self.tensors}
        pulled = {}
        amplification = self._how.adaptation.amplification
        for name, rank in self._given.ranks.items():
            key_A, key_B = factor_keys(name)
            if key_A in self.tensors:
                own = gradients[key_A][:rank]
                pulled[key_A] = own if amplification == 1 else np.float32(amplification) * own
            if key_B in self.tensors:
                pulled[key_B] = gradients[key_B][:, :rank]
            if core_key(name) in self.tensors:
                pulled[core_key(name)] = self._given.factors[name].lora_B.T @ gradients[key_B][:, :rank]
        return pulled

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

    @property
    def _is_plain(self) -> bool:
        """Whether a graph is fed the adapter itself."""
        adaptation = self._how.adaptation
        return adaptation.amplification == 1 and adaptation.trained != "core" and not self._how.frozen

    def _steps(self, key: str) -> bool:
        trained = self._how.adaptation.trained
        return trained == "both" or key.endswith(f".{trained}.weight")


def _is_second(key: str) -> bool:
    return key.endswith(".lora_B.weight")


def _widths(factors: LoraFactors) -> tuple[int, int]:
    return factors.lora_A.shape[1], factors.lora_B.shape[0]


def _core(how: Parametrisation, name: str, rank: int) -> Tensor:
    got = how.cores[name].shape if name in how.cores else "none"
    if got != (rank, rank):
        raise SpecMismatch(f"core of module {name}", got=got, expected=(rank, rank))
    return how.cores[name].astype(np.float32)
