"""Server optimizers over any rule: what the round changed is taken as a gradient.

With x the global numbers before a round, x' what the rule makes of it, and Delta = x' - x:

momentum  v <- beta v + Delta,   x <- x + eta v             FedAvgM (Hsu, Qi, Brown, arXiv 1909.06335)
adaptive  m <- beta1 m + (1 - beta1) Delta                  Reddi et al., arXiv 2003.00295, Algorithm 2:
          adagrad  v <- v + Delta^2
          yogi     v <- v - (1 - beta2) Delta^2 sign(v - Delta^2)
          adam     v <- beta2 v + (1 - beta2) Delta^2
          x <- x + eta m / (sqrt(v) + epsilon)

m begins at zero and v at epsilon^2, the least that the paper allows; there is no correction of either, as
there is none in the paper. FedAvgM at learning rate 1 and momentum 0 is the rule itself.

What x is:

- Factors, where a rule averages factors: those that devices send in the round. In a round of lora_B alone
  lora_A and its moments stay, or the mean would no longer be exact. Of Fed-SB the cores.
- Balanced factors, where a rule ends in an SVD (`free_gauge`). They come in new coordinates each round:
  signs, order and turns among close singular values are arbitrary, and a difference of such factors means
  nothing. So x' is first turned towards x (`alignment.py`), which keeps the product and the balance. After
  the step the product is cut by SVD again, so that the adapter's ranks are sorted and `distribute` cuts
  prefixes as ever; factors of the same product in the coordinates of x are kept beside, and are the x of the
  next round. Ranks that do not act yet are zero in x.

A step in factors is not a step in products: at unequal factors the product moves by B dA + dB A + dB dA.

Rules whose adapter begins anew at times (FedLoRU) take that round without a step and forget the moments;
those whose adapter does so every round have no change to step by and are refused. What a rule folds into the
frozen adapter (FedEx-LoRA's residual) is not stepped.

Moments and coordinates are in the state's `tensors`, under `optimizer.`, in float32; steps are in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from aggregator_service.aggregation.alignment import live, turned
from aggregator_service.aggregation.cutting import cut
from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.products import ProductStack
from aggregator_service.aggregation.rule import GlobalState, Handout, Rule, Update
from aggregator_service.aggregation.rules.base import RoundRule
from aggregator_service.aggregation.stacks import Array, Floats, StackedAdapter
from hetlora.adapter import AdapterSpec
from hetlora.errors import SettingsError
from hetlora.messages.server_optimizer import ServerMomentum, ServerOptimizer

PREFIX: Final = "optimizer."
Numbers = Mapping[str, Array]


def step(settings: ServerOptimizer, change: Floats, past: Numbers) -> tuple[Floats, dict[str, Floats]]:
    """How far x moves for one change, and the moments after it; `past` are those before, none at first."""
    if isinstance(settings, ServerMomentum):
        velocity = settings.momentum * past.get("velocity", np.zeros(())) + change
        return settings.learning_rate * velocity, {"velocity": velocity}
    squared, epsilon = change**2, settings.epsilon
    mean = settings.beta1 * past.get("mean", np.zeros(())) + (1 - settings.beta1) * change
    before = np.asarray(past.get("square", np.full((), epsilon**2)), np.float64)
    if settings.name == "adagrad":
        square = before + squared
    elif settings.name == "adam":
        square = settings.beta2 * before + (1 - settings.beta2) * squared
    else:
        square = before - (1 - settings.beta2) * squared * np.sign(before - squared)
    return settings.learning_rate * mean / (np.sqrt(square) + epsilon), {"mean": mean, "square": square}


def with_optimizer(rule: RoundRule[Any], settings: ServerOptimizer | None) -> Rule[Any]:
    """A rule with its server optimizer, if it has one.

    Raises:
        SettingsError: the rule's adapter begins anew every round.
    """
    return rule if settings is None else WithOptimizer(rule, settings)


@dataclass(frozen=True, slots=True)
class WithOptimizer:
    """A rule whose result is stepped towards, not taken.

    Raises:
        SettingsError: the rule's adapter begins anew every round.
    """

    rule: RoundRule[Any]
    settings: ServerOptimizer

    def __post_init__(self) -> None:
        if self.rule.always_restarts:
            raise SettingsError(
                "a server optimizer needs an adapter that goes on from round to round",
                got=self.rule.settings.name,
            )

    @property
    def spec(self) -> AdapterSpec:
        return self.rule.spec

    @property
    def smallest_rank(self) -> int:
        return self.rule.smallest_rank

    @property
    def trained_rank(self) -> int | None:
        return self.rule.trained_rank

    def init(self) -> Any:
        return self.rule.init()

    def accumulate(self, partial: Any, leaf: Sequence[Update]) -> list[float]:
        return self.rule.accumulate(partial, leaf)

    def merge(self, left: Any, right: Any) -> Any:
        return self.rule.merge(left, right)

    def weight(self, total: Any, raw: float) -> float:
        return self.rule.weight(total, raw)

    def distribute(self, rank: int, seed: int = 0) -> Handout:
        return self.rule.distribute(rank, seed)

    def finish(self, total: Any) -> GlobalState:
        return self.stepped(self.rule.finish(total))

    def stepped(self, after: GlobalState) -> GlobalState:
        """The state after a step towards what the rule came to."""
        if self.rule.restarts:
            kept = {key: own for key, own in after.tensors.items() if not key.startswith(PREFIX)}
            return replace(after, tensors=kept)
        if self.rule.free_gauge:
            return self._stepped_in_coordinates(after)
        numbers, moments = self._stepped(self.rule.learned(self.rule.state), self.rule.learned(after))
        state = self.rule.with_learned(after, numbers)
        return replace(state, tensors={**state.tensors, **moments})

    def _stepped(self, before: Numbers, after: Numbers) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each array stepped, and its moments by their keys in the state."""
        numbers: dict[str, Array] = {}
        moments: dict[str, Array] = {}
        for name, old in before.items():
            change = after[name].astype(np.float64) - old
            move, own = step(self.settings, change, _under(self.rule.state.tensors, name))
            numbers[name] = old + move
            moments |= {f"{PREFIX}{name}.{key}": value.astype(np.float32) for key, value in own.items()}
        return numbers, moments

    def _stepped_in_coordinates(self, after: GlobalState) -> GlobalState:
        before = self.rule.state
        rank = max(before.rank, before.adapter.rank, after.adapter.rank)
        old = live(before.adapter, rank)
        kept = before.tensors.get(f"{PREFIX}coordinates")
        if kept is not None:
            old = old.with_values(kept.astype(np.float64))
        new = turned(live(after.adapter, rank), old)
        numbers, moments = self._stepped({"factors": old.values}, {"factors": new.values})
        stepped = old.with_values(numbers["factors"])
        adapter = _sorted(stepped, rank, after.adapter)
        coordinates = turned(live(adapter, rank), stepped).values.astype(np.float32)
        tensors = {**after.tensors, **moments, f"{PREFIX}coordinates": coordinates}
        return replace(after, adapter=adapter, tensors=tensors)


def _under(tensors: Numbers, name: str) -> dict[str, Array]:
    """The moments of one array."""
    start = f"{PREFIX}{name}."
    return {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}


def _sorted(stepped: StackedAdapter, rank: int, like: StackedAdapter) -> StackedAdapter:
    """The same products, balanced and by falling singular value, at the module ranks of another adapter."""
    spectra = ProductStack([(stepped, 1.0)]).spectra(rank)
    return cut(balanced(stepped.spec, spectra, rank), like.ranks)
