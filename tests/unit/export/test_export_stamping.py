"""Graphs of one size: they do what the symbolic ones do, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from parity import batch_for, export_family, trained_adapter
from plain_sessions import run_gradients
from tiny_families import write_tiny_family
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from export.stamping import stamp
from hetlora.bundle import Bundle, open_bundle
from hetlora.errors import BundleInvalid, DataError, ModelNotExportable, RankOutOfRange
from hetlora.tensors import to_tensors

RANK, ROWS, TOKENS = 3, 2, 9
TOLERANCE = 1e-5  # fixed sizes may choose other kernels
FAMILIES = ("bert", "llama", "t5", "vit")


@pytest.fixture(scope="module", params=FAMILIES)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp(request.param)
    model = write_tiny_family(root / "model", request.param)
    return export_family(request.param, model, root / "bundle", runtimes=("web",))


@pytest.fixture
def batch(bundle: Bundle) -> Batch:
    return batch_for(bundle, rows=ROWS, tokens=TOKENS)


def _losses(bundle: Bundle, batch: Batch) -> list[float]:
    adapter = trained_adapter(bundle.manifest.adapter, (RANK,))
    trainer = trainer_of(bundle, adapter, pruning_decay=0.5, pruning_penalty=0.1, learning_rate=1e-2)
    return [
        *(trainer.step(batch) for _ in range(3)),
        trainer.evaluate(batch).loss,
    ]


def test_stamped_rank_trains_as_the_symbolic_one(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK)
    losses = _losses(bundle, batch)
    assert _losses(stamped, batch) == pytest.approx(losses, abs=TOLERANCE)
    assert losses[-1] < losses[0]


def test_no_symbol_is_left_where_all_sizes_are_stamped(bundle: Bundle, tmp_path: Path) -> None:
    tokens = None if bundle.manifest.image else TOKENS
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=ROWS, tokens=tokens)
    graphs = stamped.manifest.graphs
    for name in (graphs.training, graphs.eval, graphs.inference, "gradients.onnx"):
        graph = onnx.load(stamped.path(name), load_external_data=False).graph
        axes = [axis for value in (*graph.input, *graph.output) for axis in value.type.tensor_type.shape.dim]
        assert [axis.dim_param for axis in axes if axis.dim_param] == []


def test_stamped_logits_are_those_of_the_symbolic_graph(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    tokens = None if bundle.manifest.image else TOKENS
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=ROWS, tokens=tokens)
    adapter = trained_adapter(bundle.manifest.adapter, (RANK,))
    read = {**batch, "decoder_input_ids": np.ones((ROWS, TOKENS), np.int64)}
    ours, theirs = (
        OnnxModel(each, to_tensors(adapter), threads=1).logits(read) for each in (stamped, bundle)
    )
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_stamped_gradients_are_those_of_the_symbolic_graph(
    bundle: Bundle, batch: Batch, tmp_path: Path
) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=ROWS)
    adapter = trained_adapter(bundle.manifest.adapter, (RANK,))
    ours, theirs = (run_gradients(each, batch, adapter) for each in (stamped, bundle))
    assert ours.keys() == theirs.keys()
    assert all(np.abs(ours[name] - theirs[name]).max() <= TOLERANCE for name in ours)


def test_another_rank_is_not_trained(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK)
    other = trained_adapter(bundle.manifest.adapter, (RANK, RANK - 1))
    with pytest.raises(RankOutOfRange, match=r"stamped for one rank, .*; got \[2, 3\]; expected 3"):
        trainer_of(stamped, other)


def test_graph_itself_refuses_another_rank(tiny_bundle: Bundle, tmp_path: Path) -> None:
    stamped = stamp(tiny_bundle, tmp_path / "stamped", rank=RANK)
    batch, other = batch_for(tiny_bundle), trained_adapter(tiny_bundle.manifest.adapter, (RANK + 1,))
    blind = replace(stamped, manifest=stamped.manifest.model_copy(update={"fixed_rank": None}))
    with pytest.raises(DataError, match="Expected: 3"):
        OnnxModel(blind, to_tensors(other), threads=1).logits(batch)
    trainer = trainer_of(blind, other)
    with pytest.raises(DataError):
        trainer.step(batch)


def test_smaller_ranks_answer_as_in_the_symbolic_graph(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=4)
    read = {**batch, "decoder_input_ids": np.ones((ROWS, TOKENS), np.int64)}
    smaller = trained_adapter(bundle.manifest.adapter, (2, 0, 4))
    for factors in (None, to_tensors(smaller)):
        ours, theirs = (OnnxModel(each, factors, threads=1).logits(read) for each in (stamped, bundle))
        assert np.abs(ours - theirs).max() <= TOLERANCE


def test_module_of_rank_0_is_left_alone(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK)
    adapter = trained_adapter(bundle.manifest.adapter, (0, RANK))
    trainers = [
        trainer_of(each, adapter, pruning_decay=0.5, pruning_penalty=0.1, learning_rate=1e-2)
        for each in (stamped, bundle)
    ]
    ours, theirs = ([trainer.step(batch) for _ in range(3)] for trainer in trainers)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert trainers[0].adapter().ranks == adapter.ranks


def test_another_size_of_the_batch_is_refused(bundle: Bundle, batch: Batch, tmp_path: Path) -> None:
    stamped = stamp(bundle, tmp_path / "stamped", rank=RANK, batch=ROWS + 1)
    adapter = trained_adapter(bundle.manifest.adapter, (RANK,))
    with pytest.raises(DataError, match="in a batch"):
        OnnxModel(stamped, to_tensors(adapter), threads=1).logits(batch)


def test_weights_are_shared_and_the_stamped_bundle_is_whole(tiny_bundle: Bundle, tmp_path: Path) -> None:
    stamped = stamp(tiny_bundle, tmp_path / "stamped", rank=RANK, tokens=8)
    weights = tiny_bundle.manifest.graphs.base_weights
    assert stamped.path(weights).stat().st_ino == tiny_bundle.path(weights).stat().st_ino
    assert open_bundle(stamped.folder).manifest == stamped.manifest  # every digest is right
    assert (stamped.manifest.fixed_rank, stamped.manifest.max_tokens) == (RANK, 8)
    assert stamped.manifest.adapter == tiny_bundle.manifest.adapter


def test_same_sizes_give_the_same_bundle(tiny_bundle: Bundle, tmp_path: Path) -> None:
    digests = [stamp(tiny_bundle, tmp_path / name, rank=RANK, batch=1).digest for name in ("one", "two")]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("rank", [0, 9])
def test_rank_beyond_the_bundles_is_refused(tiny_bundle: Bundle, rank: int, tmp_path: Path) -> None:
    with pytest.raises(RankOutOfRange, match="expected 1 to 8"):
        stamp(tiny_bundle, tmp_path / "stamped", rank=rank)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        pytest.param({"batch": 0}, "rows to stamp; got 0", id="no rows"),
        pytest.param({"batch": 2**63}, "expected 1 to 65536", id="endless rows"),
        pytest.param({"tokens": 2}, "expected 3 to 32", id="no word between the special tokens"),
        pytest.param({"tokens": 33}, "expected 3 to 32", id="more tokens than the bundle takes"),
    ],
)
def test_impossible_size_leaves_nothing_behind(
    sizes: dict[str, int], message: str, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(ModelNotExportable, match=message):
        stamp(tiny_bundle, tmp_path / "stamped", rank=RANK, **sizes)
    assert list(tmp_path.iterdir()) == []


def test_bundle_is_stamped_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    stamped = stamp(tiny_bundle, tmp_path / "stamped", rank=RANK)
    with pytest.raises(BundleInvalid, match="stamped already; got rank 3"):
        stamp(stamped, tmp_path / "again", rank=2)
