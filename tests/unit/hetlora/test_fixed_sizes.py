from __future__ import annotations

from typing import Any

import pytest
from fake_bundle import tiny_files, tiny_manifest

from hetlora.errors import BundleInvalid
from hetlora.fixed_sizes import FixedSizes, fixed_sizes
from hetlora.manifest import Manifest, Task, TensorInput


def _manifest(*shapes: Any, task: Task = "text-generation") -> Manifest:
    names = ("input_ids", "attention_mask", "input_ids")
    inputs = tuple(
        TensorInput(name=name, dtype="int64", shape=shape) for name, shape in zip(names, shapes, strict=False)
    )
    return tiny_manifest(tiny_files(), task).model_copy(update={"inputs": inputs})


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (("batch", "tokens"), FixedSizes()),
        ((3, "tokens"), FixedSizes(rows=3)),
        (("batch", 16), FixedSizes(tokens=16)),
        ((1, 4), FixedSizes(1, 4)),
    ],
)
def test_numbers_in_the_shapes_are_fixed(shape: Any, sizes: FixedSizes) -> None:
    assert fixed_sizes(_manifest(shape, shape)) == sizes


def test_pictures_have_no_tokens() -> None:
    assert fixed_sizes(_manifest((2, 3, 8, 8), task="image-classification")) == FixedSizes(rows=2)


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([], id="none"),
        pytest.param([("batch", "tokens", "tokens")], id="three axes"),
        pytest.param([("batch", "tokens"), ("batch", 4)], id="shapes that differ"),
        pytest.param([("batch", "tokens")] * 3, id="one name twice"),
        pytest.param([("batch", 0)], id="no tokens"),
        pytest.param([(-1, "tokens")], id="negative rows"),
        pytest.param([(2**40, "tokens")], id="rows that no memory holds"),
        pytest.param([("batch", 17)], id="more than max_tokens"),
    ],
)
def test_inputs_that_no_batch_has_are_refused(shapes: Any) -> None:
    with pytest.raises(BundleInvalid, match="inputs of the manifest"):
        fixed_sizes(_manifest(*shapes))
