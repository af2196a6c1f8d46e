"""What FedEx-LoRA and LoRA-FAIR share: the mean factors and the mean product, side by side."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from aggregator_service.aggregation.products import ProductSum, merge_products, zero_products
from aggregator_service.aggregation.rule import Update
from aggregator_service.aggregation.rules.base import RoundRule, Settings
from aggregator_service.aggregation.slice_sum import SliceSum


@dataclass(slots=True)
class MeanAndProduct:
    """Weighted sums of zero-padded factors, and of products."""

    factors: SliceSum
    products: ProductSum

    @property
    def weight(self) -> float:
        """All weight."""
        return self.factors.total_weight


class MeanAndProductRule(RoundRule[Settings]):
    """A rule over both; unequal ranks are padded with zeros, as they are not in the papers."""

    @property
    @abstractmethod
    def product_rank(self) -> int:
        """How many singular triplets of products are wanted, in case they are sketched."""

    def init(self) -> MeanAndProduct:
        spec = self.state.adapter.spec
        return MeanAndProduct(self.zero_sum(), zero_products(spec, self.product_rank, self.rank_total))

    def accumulate(self, partial: MeanAndProduct, leaf: Sequence[Update]) -> list[float]:
        adapters, weights = [update.adapter for update in leaf], self.weights_of(leaf)
        partial.factors.add(adapters, weights)
        partial.products.add(adapters, weights)
        return weights

    def merge(self, left: MeanAndProduct, right: MeanAndProduct) -> MeanAndProduct:
        return MeanAndProduct(
            left.factors.merge(right.factors), merge_products(left.products, right.products)
        )

    def weight(self, total: MeanAndProduct, raw: float) -> float:
        return raw / total.weight
