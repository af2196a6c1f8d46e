"""The matrix products that a training step of a bundle is made of, as far as a probe tries them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final, Self

from hetlora.fixed_sizes import fixed_sizes
from hetlora.manifest import Manifest, reads_images

# A larger product goes at the same rate, and a burst has to be short: at these sizes it takes 67 MFLOP, 2 ms
# at 30 GFLOP/s.
MOST_ROWS: Final = 128
MOST_FEATURES: Final = 512
# Of a model's layers most have one of a few shapes; the others are tried no more.
MOST_LAYERS: Final = 3


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Linear layers of one size, and how many of them the model has."""

    in_features: int
    out_features: int
    count: int


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Rows that go through the layers at once, which are a batch's tokens, and layers, most work first."""

    rows: int
    layers: tuple[LayerShape, ...]

    @classmethod
    def of(cls, manifest: Manifest, *, batch: int, tokens: int) -> Self:
        """The shape of steps over `batch` texts of `tokens` tokens, or what the bundle is stamped for.

        It knows the layers that the bundle adapts, which stand for the model's others. A picture counts as
        many tokens, of which the manifest does not tell how many.

        Raises:
            BundleInvalid: inputs of the manifest that no batch has.
        """
        sizes = fixed_sizes(manifest)
        rows = (sizes.rows or batch) * (sizes.tokens or min(tokens, manifest.max_tokens))
        counts = Counter(
            (min(module.in_features, MOST_FEATURES), min(module.out_features, MOST_FEATURES))
            for module in manifest.adapter.modules
        )
        layers = (LayerShape(*features, count) for features, count in counts.items())
        by_work = sorted(layers, key=lambda layer: -layer.count * layer.in_features * layer.out_features)
        return cls(
            MOST_ROWS if reads_images(manifest.task) else min(rows, MOST_ROWS), tuple(by_work[:MOST_LAYERS])
        )
