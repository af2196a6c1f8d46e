"""The sizes that the graphs of a bundle take, where they take no others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hetlora.errors import BundleInvalid
from hetlora.manifest import MAX_ROWS, Manifest, reads_images


@dataclass(frozen=True, slots=True)
class FixedSizes:
    """Rows of every batch and tokens of every text, as `hetlora bundle stamp` fixes them; None is any."""

    rows: int | None = None
    tokens: int | None = None


ANY_SIZES: Final = FixedSizes()


def fixed_sizes(manifest: Manifest) -> FixedSizes:
    """The sizes of which the manifest's inputs leave no choice.

    Raises:
        BundleInvalid: no inputs, one twice, or shapes that no batch has: of text they are (batch, tokens), of
            pictures (batch, channels, height, width).
    """
    is_text = not reads_images(manifest.task)
    names = {tensor.name for tensor in manifest.inputs}
    shapes = {tensor.shape for tensor in manifest.inputs}
    if len(names) == len(manifest.inputs) and {len(shape) for shape in shapes} == {2 if is_text else 4}:
        batch, second, *_ = next(iter(shapes))
        rows = batch if isinstance(batch, int) else None
        tokens = second if is_text and isinstance(second, int) else None
        limits = ((rows, MAX_ROWS), (tokens, manifest.max_tokens))
        if len(shapes) == 1 and all(size is None or 1 <= size <= most for size, most in limits):
            return FixedSizes(rows, tokens)
    raise BundleInvalid(
        "inputs of the manifest",
        got=[(tensor.name, tensor.shape) for tensor in manifest.inputs],
        expected=f"those of {manifest.task}, for up to {manifest.max_tokens} tokens",
    )
