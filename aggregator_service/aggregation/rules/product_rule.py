"""What the rules over products share: M = sum_k w_k B_k A_k, and its leading triplets as the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aggregator_service.aggregation.gauge import balanced
from aggregator_service.aggregation.products import ProductSum, merge_products, zero_products
from aggregator_service.aggregation.rule import GlobalState, Update
from aggregator_service.aggregation.rules.base import RoundRule, Settings


@dataclass(slots=True)
class ProductPartial:
    """The weighted sum of products, and all weight."""

    products: ProductSum
    weight: float = 0.0


class ProductRule(RoundRule[Settings]):
    """The mean product, cut to the run's rank by SVD, until a rule says otherwise."""

    free_gauge = True
    same_coordinates = False

    def init(self) -> ProductPartial:
        return ProductPartial(zero_products(self.state.adapter.spec, self.state.rank, self.rank_total))

    def accumulate(self, partial: ProductPartial, leaf: Sequence[Update]) -> list[float]:
        weights = self.weights_of(leaf)
        partial.products.add([update.adapter for update in leaf], weights)
        partial.weight += sum(weights)
        return weights

    def merge(self, left: ProductPartial, right: ProductPartial) -> ProductPartial:
        products = merge_products(left.products, right.products)
        return ProductPartial(products, left.weight + right.weight)

    def weight(self, total: ProductPartial, raw: float) -> float:
        return raw / total.weight

    def finish(self, total: ProductPartial) -> GlobalState:
        spectra = total.products.spectra(self.state.rank, energies=False)
        return self.next_state(balanced(self.state.adapter.spec, spectra, self.state.rank, 1 / total.weight))
