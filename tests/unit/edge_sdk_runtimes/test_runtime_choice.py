"""Which runtime a device trains with, by what is installed there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edge_sdk.runtimes import RUNTIMES, name_of, open_model, runtime_for, runtime_named
from edge_sdk.runtimes.base import TrainingRuntime
from edge_sdk.runtimes.onnx import OnnxRuntime
from edge_sdk.runtimes.pytorch import PytorchRuntime
from hetlora.bundle import Bundle
from hetlora.errors import DependencyMissing, SettingsError
from hetlora.manifest import ExecutorchFiles, Manifest, PytorchFiles


@pytest.fixture
def manifest(tiny_bundle: Bundle) -> Manifest:
    files = ExecutorchFiles(training="training.pte", inference="inference.pte", base_weights="base.ptd")
    return tiny_bundle.manifest.model_copy(update={"executorch": files})


@pytest.fixture
def for_all(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"pytorch": PytorchFiles(config="config.json", weights="weights.json")})


def test_pytorch_comes_last(for_all: Manifest, without: Callable[..., None]) -> None:
    from edge_sdk.runtimes.executorch import ExecutorchRuntime

    assert runtime_for(for_all) is OnnxRuntime
    without("onnxruntime")
    assert runtime_for(for_all) is ExecutorchRuntime
    without("executorch")
    assert runtime_for(for_all) is PytorchRuntime


def test_device_with_none_of_three_is_told_what_is_wrong_with_each(
    for_all: Manifest, without: Callable[..., None]
) -> None:
    without("onnxruntime", "executorch", "peft")
    with pytest.raises(DependencyMissing) as caught:
        runtime_for(for_all)
    for words in ("ONNX Runtime", "ExecuTorch", "PyTorch, transformers or PEFT cannot be imported"):
        assert words in str(caught.value.got)
    assert "hetlora[edge-pytorch]" in str(caught.value.expected)


def test_runtime_is_had_by_its_name() -> None:
    assert [runtime_named(name).__name__ for name in RUNTIMES] == [
        *("OnnxRuntime", "ExecutorchRuntime", "PytorchRuntime")
    ]
    with pytest.raises(
        SettingsError, match=r"unknown runtime; got 'tflite'; expected one of onnx, executorch"
    ):
        runtime_named("tflite")


@pytest.mark.parametrize("name", RUNTIMES)
def test_runtime_of_the_table_tells_its_name(name: str) -> None:
    assert name_of(runtime_named(name)) == name


def test_runtime_of_ones_own_goes_by_what_it_says_or_by_where_it_is_written() -> None:
    class Opener:
        def __call__(self, *given: object, **options: object) -> TrainingRuntime:
            raise NotImplementedError

    class Saying(Opener):
        name = "own"

    def opened(*given: object, **options: object) -> TrainingRuntime:
        raise NotImplementedError

    assert name_of(Saying()) == "own"
    assert name_of(Opener()) == f"{__name__}.{Opener.__qualname__}"
    assert name_of(opened) == f"{__name__}.{opened.__qualname__}"


def test_runtime_that_is_named_and_not_installed_is_missed(without: Callable[..., None]) -> None:
    without("onnxruntime")
    with pytest.raises(DependencyMissing, match="ONNX Runtime cannot be imported"):
        runtime_named("onnx")


def test_onnx_runtime_comes_first(manifest: Manifest) -> None:
    assert runtime_for(manifest) is OnnxRuntime


def test_executorch_serves_where_onnx_runtime_is_not_installed(
    manifest: Manifest, without: Callable[..., None]
) -> None:
    from edge_sdk.runtimes.executorch import ExecutorchRuntime

    without("onnxruntime")
    assert runtime_for(manifest) is ExecutorchRuntime


def test_bundle_without_programs_asks_for_onnx_runtime(
    tiny_bundle: Bundle, without: Callable[..., None]
) -> None:
    without("onnxruntime")
    with pytest.raises(DependencyMissing, match="onnxruntime-training-cpu"):
        runtime_for(tiny_bundle.manifest)


def test_device_with_neither_is_told_what_is_wrong_with_each(
    manifest: Manifest, without: Callable[..., None]
) -> None:
    without("onnxruntime", "executorch")
    with pytest.raises(DependencyMissing) as caught:
        runtime_for(manifest)
    assert caught.value.got == (
        "ONNX Runtime cannot be imported (No module named 'onnxruntime'), "
        "and ExecuTorch cannot be imported (No module named 'executorch')"
    )
    assert caught.value.expected is not None
    for command in ("pip install onnxruntime-training-cpu", "executorch=="):
        assert command in caught.value.expected


def test_model_without_programs_asks_for_onnx_runtime_too(
    tiny_bundle: Bundle, without: Callable[..., None]
) -> None:
    without("onnxruntime")
    with pytest.raises(DependencyMissing, match="ONNX Runtime cannot be imported"):
        open_model(tiny_bundle)
