"""A bundle with both kinds of programs: ExecuTorch beside ONNX Runtime on the same language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_model import WORDS
from trainers import trainer_of

from edge_sdk.adapters.generation import TextGenerator
from edge_sdk.runtimes import open_model
from edge_sdk.runtimes.executorch import ExecutorchModel, ExecutorchRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from hetlora.adapter import Adapter, AdapterSpec
from hetlora.bundle import Bundle

pytestmark = pytest.mark.slow  # lowering a model takes half a minute

LOSS_TOLERANCE = 1e-5

MakeAdapter = Callable[[AdapterSpec, int], Adapter]


@pytest.fixture
def bundle(executorch_case: Callable[[str], tuple[Path, Bundle]]) -> Bundle:
    return executorch_case("gpt2")[1]


def test_generated_text_is_that_of_onnx_runtime_under_each_adapter(
    bundle: Bundle, telling_adapter: MakeAdapter
) -> None:
    generators = (
        TextGenerator(bundle, threads=1),
        TextGenerator(bundle, ExecutorchModel(bundle, threads=1)),
    )
    answers = []
    for seed in (3, 4):  # swapped without opening anything anew
        adapter = telling_adapter(bundle.manifest.adapter, seed)
        ours, theirs = (
            each.generate(" ".join(WORDS[:3]), max_new_tokens=8, adapter=adapter) for each in generators
        )
        assert ours == theirs
        answers.append(ours)
    assert answers[0].token_ids
    assert answers[0] != answers[1]


def test_text_is_generated_where_executorch_alone_is_installed(
    bundle: Bundle, telling_adapter: MakeAdapter, without: Callable[..., None]
) -> None:
    adapter = telling_adapter(bundle.manifest.adapter, 3)
    expected = TextGenerator(bundle, threads=1).generate(WORDS[0], max_new_tokens=4, adapter=adapter)
    without("onnxruntime")
    assert isinstance(open_model(bundle), ExecutorchModel)
    assert TextGenerator(bundle).generate(WORDS[0], max_new_tokens=4, adapter=adapter) == expected


def test_evaluation_is_that_of_onnx_runtime_and_tells_the_loss_alone(
    bundle: Bundle, telling_adapter: MakeAdapter
) -> None:
    ids = np.array([[4, 5, 6, 7, 8], [9, 10, 11, 0, 0]])
    batch = {
        "input_ids": ids,
        "attention_mask": (ids > 0).astype(np.int64),
        "labels": np.where(ids > 0, ids, -100),
    }
    adapter = telling_adapter(bundle.manifest.adapter, 3)
    ours, theirs = (
        trainer_of(bundle, adapter, runtime=runtime).evaluate(batch)
        for runtime in (ExecutorchRuntime, OnnxRuntime)
    )
    assert ours.logits is None
    assert ours.loss == pytest.approx(theirs.loss, abs=LOSS_TOLERANCE)
