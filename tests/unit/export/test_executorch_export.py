from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.bundle_writer import export_bundle
from export.executorch.files import write_executorch
from export.executorch.program import AdaptedModel, class_loss, next_token_loss, tail_norms
from export.quiet import quiet_libraries
from hetlora.adapter import AdapterSpec, LoraFactors, ModuleSpec
from hetlora.algebra import module_tail_norm, pruned_rank
from hetlora.errors import DependencyMissing, ModelNotExportable
from hetlora.manifest import TensorInput

SPEC = AdapterSpec((ModuleSpec("layer", 6, 4),), 2.0, 3)
INPUTS = (TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),)


class Tiny(nn.Module):
    """Embeds tokens, averages them, and adapts one layer: seconds to lower."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.embedding, self.layer = nn.Embedding(11, 6), nn.Linear(6, 4)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.layer(self.middle(self.embedding(input_ids).mean(dim=1)))

    def middle(self, x: Tensor) -> Tensor:
        return x


class Branching(Tiny):
    """Decides by a value, which no traced program can."""

    def middle(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Spectral(nn.Module):
    """An operator that ExecuTorch has no kernel for, inside a named module."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.cholesky_ex(x.T @ x)[0].sum(dim=0) + x


class WithSpectral(Tiny):
    def __init__(self) -> None:
        super().__init__()
        self.spectral = Spectral()

    def middle(self, x: Tensor) -> Tensor:
        return self.spectral(x)


class Counting(Tiny):
    """Keeps a number from call to call."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def middle(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls


def _write(model: nn.Module, folder: Path, task: str = "text-classification") -> None:
    folder.mkdir(exist_ok=True)
    write_executorch(model, SPEC, folder, task=task, inputs=INPUTS, max_batch=4, max_tokens=8)


@pytest.mark.slow
def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        _write(Tiny(), tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["base.ptd", "inference.pte", "training.pte"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.slow
def test_passes_that_were_left_out_would_have_changed_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    class Varied(Tiny):
        def middle(self, x: Tensor) -> Tensor:
            return (x + 1.0).relu() * x.softmax(dim=-1)  # the sum takes the activation in

    def program() -> bytes:
        model = Varied().requires_grad_(False)
        adapted = AdaptedModel(model, model, SPEC, ("input_ids",))
        with quiet_libraries():
            from export.executorch.graph import trace_inference
            from export.executorch.lowering import lower, xnnpack

            lowered = lower(
                trace_inference(adapted, INPUTS, {"batch": 4, "tokens": 8}), "inference", xnnpack()
            )
        assert lowered.refusal is None
        return lowered.program

    fitting = program()
    monkeypatch.setattr("export.executorch.lowering.needless_passes_left_out", nullcontext)
    assert program() == fitting


@pytest.mark.slow
def test_operator_without_a_kernel_is_named_with_its_module(tmp_path: Path) -> None:
    with pytest.raises(ModelNotExportable, match=r"linalg_cholesky_ex.* in module spectral"):
        _write(WithSpectral(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_delegate_that_refuses_gives_way_to_the_portable_kernels() -> None:
    class Trailing(Tiny):
        def middle(self, x: Tensor) -> Tensor:
            return (x.unsqueeze(-1) * 2.0).squeeze(-1)

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.layer(self.middle(self.embedding(input_ids)).mean(dim=1))

    model = Trailing().requires_grad_(False)
    adapted = AdaptedModel(model, model, SPEC, ("input_ids",))
    with quiet_libraries():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner

        from export.executorch.graph import trace_inference
        from export.executorch.lowering import lower

        traced = trace_inference(adapted, INPUTS, {"batch": 4, "tokens": 8})
        # All of XNNPACK's own choice, with the reshapes along two symbolic axes that it cannot do.
        lowered = lower(traced, "inference", XnnpackPartitioner())
    assert lowered.refusal is not None
    assert "Error: " in lowered.refusal


def test_decision_by_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotExportable, match=r"cannot follow module Branching.*data-dependent"):
        _write(Branching(), tmp_path)


@pytest.mark.slow
def test_model_with_a_state_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotExportable, match="changes no state"):
        _write(Counting(), tmp_path)


def test_missing_library_is_told_with_the_command_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # What the import system takes for: not installed.
    monkeypatch.setitem(sys.modules, "export.executorch.lowering", None)
    with pytest.raises(DependencyMissing, match=r"pip install executorch==1\.4\.1"):
        export_bundle(
            str(tmp_path / "no-model"),
            tmp_path / "bundle",
            task="text-generation",
            targets=["q_proj"],
            runtimes=["onnx", "executorch"],
        )


def test_unknown_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotExportable, match="got translation"):
        _write(Tiny(), tmp_path, task="translation")


def test_class_loss_is_the_cross_entropy_of_torch() -> None:
    logits, labels = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 2, 1, 1, 0]),
    )
    assert torch.allclose(class_loss(logits, labels), nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_next_token_loss_is_the_shifted_cross_entropy_of_torch(tokens: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, tokens, 7, generator=generator)
    labels = torch.randint(0, 7, (3, tokens), generator=generator)
    labels[0, -1] = -100
    expected = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 7), labels[:, 1:].reshape(-1))
    got = next_token_loss(logits, labels)
    assert torch.allclose(got, expected) if tokens > 1 else got == 0


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.7, 0.99, 1.0])
def test_tail_norms_are_those_of_the_algebra(decay: float) -> None:
    rng = np.random.default_rng(0)
    lora_A, lora_B = rng.standard_normal((10, 6)), rng.standard_normal((4, 10))
    expected = module_tail_norm(LoraFactors(lora_A, lora_B), pruned_rank(10, decay))
    factors = ((torch.tensor(lora_A, dtype=torch.float32), torch.tensor(lora_B, dtype=torch.float32)),)
    got = tail_norms(factors, torch.tensor(decay, dtype=torch.float64))
    assert float(got) == pytest.approx(expected, rel=1e-5, abs=2e-12)
