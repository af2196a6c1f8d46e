"""The product that phones and pages measure themselves by."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest


def test_graph_is_a_product() -> None:
    runtime = pytest.importorskip("onnxruntime")
    literal = json.loads((Path(__file__).parent / "product.json").read_text())
    session = runtime.InferenceSession(
        base64.b64decode(literal["onnx_base64"]), providers=["CPUExecutionProvider"]
    )
    generator = np.random.default_rng(0)
    a = generator.integers(-3, 4, (literal["rows"], literal["inner"])).astype(np.float32)
    b = generator.integers(-3, 4, (literal["inner"], literal["columns"])).astype(np.float32)
    (product,) = session.run(["c"], {"a": a, "b": b})
    assert np.array_equal(product, a @ b)  # whole numbers: no order of adding rounds
