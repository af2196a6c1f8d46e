"""Examples that fill batches of any size: of texts the length counts, of pictures that they are there."""

from __future__ import annotations

from edge_sdk.examples import AnyExample, Example, ImageExample
from hetlora.manifest import Manifest, reads_images


def examples_of(manifest: Manifest, count: int, *, words: int = 3) -> list[AnyExample]:
    """So many examples that a bundle can learn from, all different if they are texts, of `words` and one."""
    labels = manifest.labels or ("wet",)
    chosen = [labels[number % len(labels)] for number in range(count)]
    if not reads_images(manifest.task):
        weather = " ".join(("the", "rain", "falls")[place % 3] for place in range(words))
        return [Example(f"{number} {weather}", label) for number, label in enumerate(chosen)]
    _, channels, height, width = manifest.inputs[0].shape
    shape = (int(height), int(width), int(channels))
    blank = bytes(shape[0] * shape[1] * shape[2])
    return [ImageExample(blank, label, shape=shape) for label in chosen]
