"""FlexLoRA (Bai et al., arXiv 2402.11505, section 3.2) and HLoRA (Liu et al., arXiv 2503.00813): one rule.

    M = sum_k p_k s B_k A_k,   M = U S V^T,   client k gets U[:, :r_k], S[:r_k], V^T[:r_k] as its factors

1. Average the products, weighted by the number of examples, or all alike (`weights`).
2. Cut the singular value decomposition of M to the run's rank; no dense M of all modules, no full SVD.
3. A device gets the leading triplets that fit its rank: the global factors are sorted, so a prefix will do.

The scale s is one constant of the specification here and cancels. The papers hand out U S and V^T (FlexLoRA)
or leave the split open; ours is balanced, U sqrt(S) and sqrt(S) V^T, and refills ranks that M does not have
(`gauge.py`).
"""

from __future__ import annotations

from aggregator_service.aggregation.rules.product_rule import ProductRule
from hetlora.messages.rules import FlexLoraRule


class FlexLora(ProductRule[FlexLoraRule]):
    """The mean product, redistributed by SVD."""
