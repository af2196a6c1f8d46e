"""PEFT folders come in: as an adapter of a bundle, and as what a bundle is made for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_families import VOCABULARY, write_tiny_family
from typer.testing import CliRunner, Result

from edge_sdk.runtimes.onnx import OnnxModel
from export.peft.peft_adapter import WEIGHTS_NAME
from export.quiet import quiet_libraries
from export.source.model_folder import load_model
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.main import app
from hetlora.errors import (
    AdapterError,
    BundleInvalid,
    ModelNotExportable,
    RankOutOfRange,
    SettingsError,
    SpecMismatch,
)
from hetlora.tensors import adapter_from_bytes, to_tensors

TASK = "text-generation"
TOLERANCE = 1e-4  # float32, with sums in another order; logits reach 20
IDS = np.arange(12).reshape(2, 6) % len(VOCABULARY)


def hetlora(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


class TinyPeft:
    """A tiny Llama with a PEFT adapter of unequal ranks and alphas, saved, and its logits."""

    def __init__(self, root: Path) -> None:
        self.model = write_tiny_family(root / "tiny-llama", "llama")
        self.folder = root / "lora"
        config = LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=["q_proj", "down_proj"],
            rank_pattern={"layers.1.self_attn.q_proj": 2},
            alpha_pattern={"down_proj": 1},
            use_rslora=True,
        )
        with torch.random.fork_rng(devices=[]), quiet_libraries():
            torch.manual_seed(0)
            wrapped = get_peft_model(load_model(self.model, TASK), config)
            with torch.no_grad():
                for name, parameter in wrapped.named_parameters():
                    if "lora_" in name:
                        parameter.normal_(std=0.2)
                self.logits = wrapped.eval()(input_ids=torch.from_numpy(IDS)).logits.numpy()
            wrapped.save_pretrained(str(self.folder))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyPeft:
    return TinyPeft(tmp_path_factory.mktemp("peft"))


@pytest.fixture(scope="module")
def exported(tiny: TinyPeft, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """The bundle made for the adapter, and the adapter's file."""
    out = tmp_path_factory.mktemp("bundles") / "bundle"
    done = hetlora(
        *("export", tiny.model, "--task", TASK, "--from-adapter", tiny.folder),
        *("--max-tokens", 16, "--out", out, "--json"),
    )
    assert done.exit_code == 0, done.output
    return open_bundle(out), out / json.loads(done.stdout)["initial_adapter"]


def logits_of(bundle: Bundle, file: Path) -> np.ndarray:
    adapter = adapter_from_bytes(file.read_bytes(), bundle.manifest.adapter)
    batch = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    return OnnxModel(bundle, to_tensors(adapter), threads=1).logits(batch)


def test_bundle_made_for_an_adapter_answers_as_peft_does(
    exported: tuple[Bundle, Path], tiny: TinyPeft
) -> None:
    bundle, file = exported
    spec = bundle.manifest.adapter
    assert [module.name for module in spec.modules] == [
        f"model.layers.{layer}.{leaf}" for layer in (0, 1) for leaf in ("mlp.down_proj", "self_attn.q_proj")
    ]
    assert (spec.max_rank, spec.scaling) == (4, 1.5)  # 6 / 4
    assert file.name == bundle.manifest.initial_adapter
    assert np.abs(logits_of(bundle, file) - tiny.logits).max() <= TOLERANCE


def test_adapter_fits_a_bundle_that_trains_more_at_another_scaling(tiny: TinyPeft, tmp_path: Path) -> None:
    bundle, out = tmp_path / "bundle", tmp_path / "new" / "adapter.safetensors"
    made = hetlora(
        *("export", tiny.model, "--task", TASK, "--targets", "q_proj,v_proj,down_proj"),
        *("--max-rank", 8, "--max-tokens", 16, "--out", bundle),
    )
    assert made.exit_code == 0, made.output

    done = hetlora("adapter", "import", tiny.folder, "--bundle", bundle, "--out", out, "--json")

    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["modules"], told["rank"], told["base_model"]) == (4, 4, str(tiny.model))
    assert np.abs(logits_of(open_bundle(bundle), out) - tiny.logits).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        pytest.param(
            ["--targets", "q_proj"], SettingsError, "--targets is what the adapter says", id="targets"
        ),
        pytest.param(["--scaling", "2"], SettingsError, "--scaling is what the adapter says", id="scaling"),
        pytest.param(["--max-rank", "3"], RankOutOfRange, "expected at least 4", id="rank"),
        pytest.param(
            ["--last-layers", "1"], ModelNotExportable, "outside the layers that train", id="layers"
        ),
    ],
)
def test_option_against_the_adapter_is_refused(
    tiny: TinyPeft, tmp_path: Path, given: list[str], error: type[Exception], words: str
) -> None:
    out = tmp_path / "bundle"
    done = hetlora("export", tiny.model, "--task", TASK, "--from-adapter", tiny.folder, "--out", out, *given)
    assert isinstance(done.exception, error)
    assert words in str(done.exception)
    assert not [*tmp_path.iterdir()]


def test_export_for_an_adapter_of_other_widths_leaves_no_bundle(tiny: TinyPeft, tmp_path: Path) -> None:
    other, out = tmp_path / "other", tmp_path / "out" / "bundle"
    shutil.copytree(tiny.folder, other)
    tensors = load_file(other / WEIGHTS_NAME)
    key = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
    tensors[key] = tensors[key][:, :48].clone()  # of 64
    save_file(tensors, other / WEIGHTS_NAME)

    done = hetlora(
        *("export", tiny.model, "--task", TASK, "--from-adapter", other, "--max-tokens", 16, "--out", out)
    )

    assert isinstance(done.exception, SpecMismatch)
    assert "in_features 48" in str(done.exception)
    assert not [*out.parent.iterdir()]


def test_import_that_fails_leaves_no_file(
    exported: tuple[Bundle, Path], tiny: TinyPeft, tmp_path: Path
) -> None:
    bundle, _ = exported
    out = tmp_path / "adapter.safetensors"
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "adapter_config.json").write_bytes((tiny.folder / "adapter_config.json").read_bytes())

    assert isinstance(import_error(torn, bundle.folder, out), AdapterError)
    assert isinstance(import_error(tiny.folder, tmp_path, out), BundleInvalid)
    assert isinstance(import_error(tiny.folder, bundle.folder, torn), SettingsError)
    assert isinstance(import_error(tiny.folder, bundle.folder, torn / "adapter_config.json/x"), SettingsError)
    assert [*tmp_path.iterdir()] == [torn]
    assert not (torn / WEIGHTS_NAME).exists()


def test_adapter_of_another_model_is_refused_by_the_names_of_its_modules(
    tiny: TinyPeft, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    error = import_error(tiny.folder, tiny_bundle.folder, tmp_path / "adapter.safetensors")
    assert isinstance(error, SpecMismatch)
    assert "model.layers.0.mlp.down_proj" in str(error)


def import_error(folder: Path, bundle: Path, out: Path) -> BaseException | None:
    return hetlora("adapter", "import", folder, "--bundle", bundle, "--out", out).exception
