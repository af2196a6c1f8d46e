"""FedEx-LoRA (Singhal et al., arXiv 2410.09432): what mean factors miss of the mean product is frozen.

    lora_A <- A = sum_k p_k A_k,   lora_B <- B = sum_k p_k B_k,   W <- W + s (sum_k p_k B_k A_k - B A)

as given in methods.md (B.1); p_k by examples here, all alike with `weights` uniform.

1. Average the factors, as FedAvg does.
2. Take the residual between the mean of the products and the product of the means.
3. Add it to the model, so that model and adapter together are the mean of what the devices had. The service
   has no weights: residuals gather in the frozen adapter, which every device adds to its model, of rank up
   to `frozen_rank`; the norm of what a round cuts off is told as `norm_cut_off`.

The paper has equal ranks; unequal ones are padded with zeros, so that its dilution is FlexLoRA's, of what the
adapter holds; what is frozen is averaged with nobody. The residual is of the factors as they are handed out,
float32, whose rounding it makes good.
"""

from __future__ import annotations

from dataclasses import replace

from aggregator_service.aggregation.frozen import fold_sum
from aggregator_service.aggregation.rule import GlobalState
from aggregator_service.aggregation.rules.mean_and_product import MeanAndProduct, MeanAndProductRule
from hetlora.messages.rules import FedExRule


class FedEx(MeanAndProductRule[FedExRule]):
    """The mean factors, and the residual of the mean product."""

    @property
    def product_rank(self) -> int:
        return self.settings.frozen_rank

    def finish(self, total: MeanAndProduct) -> GlobalState:
        mean, products = total.factors.mean(), total.products
        products.add([mean], [-total.weight])
        if self.state.frozen is not None:
            products.add([self.state.frozen], [total.weight])
        frozen, lost = fold_sum(mean.spec, products, self.settings.frozen_rank, 1 / total.weight)
        return replace(self.next_state(mean), frozen=frozen, figures={"norm_cut_off": lost})
