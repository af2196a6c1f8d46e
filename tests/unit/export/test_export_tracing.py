"""Every family's traced and cleaned graph, fed with the model's real weights, against transformers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from tiny_families import IMAGE, TINY_FAMILIES, VOCABULARY, write_tiny_family
from torch import nn
from transformers import AutoConfig, PreTrainedModel

from export.graphs.cleaning import clean
from export.graphs.linear_layers import linear_layers
from export.quiet import quiet_libraries
from export.source.tracing import auto_class, trace, weightless_model
from hetlora.errors import ModelNotExportable

# Of float32 sums in another order, on outputs of magnitude 1 to 4.
TOLERANCE = 1e-5
BATCH = 3


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@cache
def _model(folder: Path, family: str) -> PreTrainedModel:
    place = write_tiny_family(folder / family, family)
    with quiet_libraries():
        loaded = auto_class(TINY_FAMILIES[family].task).from_pretrained(
            place, dtype=torch.float32, attn_implementation="eager"
        )
    return loaded.eval()


@cache
def _graph(folder: Path, family: str) -> ModelProto:
    _model(folder, family)
    task = TINY_FAMILIES[family].task
    with quiet_libraries():
        return clean(trace(weightless_model(AutoConfig.from_pretrained(folder / family), task), task))


def _feeds(task: str, names: list[str], tokens: int) -> dict[str, NDArray[np.generic]]:
    """Random words, the second and third text shorter than the first."""
    rng = np.random.default_rng(0)
    lengths = np.array([tokens, tokens - 1, 2])
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    feeds: dict[str, NDArray[np.generic]] = {
        "input_ids": rng.integers(4, len(VOCABULARY), (BATCH, tokens)) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros((BATCH, tokens), dtype=np.int64),
        "decoder_input_ids": rng.integers(4, len(VOCABULARY), (BATCH, tokens + 2)),
        "pixel_values": rng.normal(size=(BATCH, *IMAGE)).astype(np.float32),
    }
    return {name: feeds[name] for name in names}


# Below, at and above the 16 tokens that the exporter was shown, and past the tiny sliding windows.
@pytest.mark.parametrize("tokens", [3, 16, 23])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_graph_answers_as_transformers_does(folder: Path, family: str, tokens: int) -> None:
    model, graph, task = _model(folder, family), _graph(folder, family), TINY_FAMILIES[family].task
    weights = {name: weight.numpy() for name, weight in model.state_dict().items()}
    names = [value.name for value in graph.graph.input]
    feeds = _feeds(task, [name for name in names if name not in weights], tokens)
    with torch.no_grad(), quiet_libraries():
        answer = model(**{name: torch.from_numpy(value) for name, value in feeds.items()})
    (output,) = graph.graph.output
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {**feeds, **{name: weights[name] for name in names if name in weights}})
    # What stands behind the end of a text counts for nothing, and need not agree.
    counts = feeds["attention_mask"] == 1 if output.name == "last_hidden_state" else ...
    np.testing.assert_allclose(got[counts], answer[output.name].numpy()[counts], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_weights_are_inputs_in_the_orientation_of_the_checkpoint(folder: Path, family: str) -> None:
    weights = {name: tuple(weight.shape) for name, weight in _model(folder, family).state_dict().items()}
    graph = _graph(folder, family).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in graph.input
        if value.name in weights
    }
    assert shapes == {name: weights[name] for name in shapes}
    assert len(shapes) > 10
    # Masks and frequencies of the size that the configuration asks for, and small constants.
    assert all(np.prod(tensor.dims) <= 64 * 64 for tensor in graph.initializer)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_symbols_are_batch_and_tokens(folder: Path, family: str) -> None:
    graph = _graph(folder, family).graph
    symbols = {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in graph.input
        if "." not in value.name
    }
    text = {"input_ids": ("batch", "tokens"), "attention_mask": ("batch", "tokens")}
    expected = {
        "image-classification": {"pixel_values": ("batch", *IMAGE)},
        "text2text-generation": {**text, "decoder_input_ids": ("batch", "target_tokens")},
    }.get(TINY_FAMILIES[family].task, text)
    symbols.pop("token_type_ids", None)
    assert symbols == expected


def test_tied_weight_is_one_input(folder: Path) -> None:
    graph = _graph(folder, "smollm").graph
    names = [value.name for value in graph.input]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_soft_cap_stays_behind_the_output_projection(folder: Path) -> None:
    graph = _graph(folder, "gemma2")
    head = linear_layers(graph)["lm_head"]
    behind = graph.graph.node[[node.name for node in graph.graph.node].index(head.node.name) + 1 :]
    assert [node.op_type for node in behind] == ["Div", "Tanh", "Mul"]


class _Bessel(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x)


class _Broken(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no kernel of this kind")


def _refusal(folder: Path, activation: nn.Module) -> str:
    _model(folder, "bert")
    model = weightless_model(AutoConfig.from_pretrained(folder / "bert"), "text-classification")
    model.encoder.layer[1].intermediate.intermediate_act_fn = activation
    with pytest.raises(ModelNotExportable) as caught, quiet_libraries():
        trace(model, "text-classification")
    return str(caught.value)


def test_operator_that_onnx_lacks_is_named_with_its_module(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    refusal = _refusal(folder, _Bessel())
    place = "module encoder.layer.1.intermediate.intermediate_act_fn"
    assert f"operator aten::special_bessel_j0 of {place} has no form in ONNX" in refusal
    assert capfd.readouterr() == ("", "")


def test_module_that_fails_while_traced_is_named(folder: Path) -> None:
    refusal = _refusal(folder, _Broken())
    assert "module encoder.layer.1.intermediate.intermediate_act_fn cannot be traced" in refusal
    assert "no kernel of this kind" in refusal


def test_model_has_its_weights_back_after_tracing(folder: Path) -> None:
    _model(folder, "smollm")
    model = weightless_model(AutoConfig.from_pretrained(folder / "smollm"), "text-generation")
    before = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    with quiet_libraries():
        trace(model, "text-generation")
    assert {name: tuple(weight.shape) for name, weight in model.named_parameters()} == before
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_architecture_without_the_task_is_refused(folder: Path) -> None:
    _model(folder, "vit")
    with pytest.raises(ModelNotExportable, match="'vit' is not known for text-generation"):
        weightless_model(AutoConfig.from_pretrained(folder / "vit"), "text-generation")


def test_architecture_that_optimum_does_not_know_is_refused() -> None:
    from transformers import FNetConfig

    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8}
    model = weightless_model(FNetConfig(**sizes), "text-classification")
    with pytest.raises(ModelNotExportable, match="'fnet' is not known for text-classification"):
        trace(model, "text-classification")


_ONE_BILLION = """
import resource
from transformers import LlamaConfig
from export.graphs.cleaning import clean
from export.quiet import quiet_libraries
from export.source.tracing import trace, weightless_model

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

before = peak()
sizes = dict(hidden_size=2048, intermediate_size=8192, num_hidden_layers=16)
heads = dict(num_attention_heads=32, num_key_value_heads=8, head_dim=64)
config = LlamaConfig(vocab_size=128256, tie_word_embeddings=True, **sizes, **heads)
with quiet_libraries():
    model = weightless_model(config, "text-generation")
    clean(trace(model, "text-generation"))
print(sum(parameter.numel() for parameter in model.parameters()), peak() - before)
"""


@pytest.mark.slow
def test_a_billion_parameters_take_no_memory() -> None:
    run = subprocess.run([sys.executable, "-c", _ONE_BILLION], capture_output=True, text=True, check=True)
    parameters, mebibytes = map(int, run.stdout.split()[-2:])
    assert parameters == 1_235_814_400
    assert mebibytes < 200  # in float32 the weights alone would take 4714


def test_configuration_of_the_caller_stays_as_it_was() -> None:
    config = TINY_FAMILIES["llama"].configure()
    before = config.to_dict()
    assert not weightless_model(config, "text-generation").config.use_cache
    assert config.to_dict() == before
    assert config.use_cache
