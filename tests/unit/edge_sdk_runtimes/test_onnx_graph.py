"""Which files ONNX Runtime may read: the base weights, however deep in a graph another one is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import GraphProto, ModelProto, SparseTensorProto, TensorProto, helper
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.runtimes.onnx_graph import checked_graph
from hetlora.adapter import initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import BundleInvalid
from hetlora.tensors import to_tensors

GRAPHS = ("training", "eval", "inference")


@pytest.fixture
def bundle(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    """A copy that may be written to; its digests are not looked at here."""
    return replace(tiny_bundle, folder=Path(shutil.copytree(tiny_bundle.folder, tmp_path / "bundle")))


def _open(bundle: Bundle, graph: str, batch: Batch) -> object:
    """Use a bundle so that a graph of it is opened."""
    adapter = initial_adapter(bundle.manifest.adapter, 2, np.random.default_rng(0))
    if graph == "inference":
        return OnnxModel(bundle, to_tensors(adapter), threads=1).logits(batch)
    trainer = trainer_of(bundle, adapter)
    return trainer.evaluate(batch) if graph == "eval" else None


def _edit(bundle: Bundle, graph: str, edit: Callable[[ModelProto], object]) -> None:
    path = bundle.path(getattr(bundle.manifest.graphs, graph))
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())


def _outside(**told: str) -> TensorProto:
    """A tensor of two numbers in a file."""
    tensor = TensorProto(name="outside", dims=[2], data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    usual = {"location": "base.bin", "offset": "0", "length": "8"}
    for key, value in (usual | told).items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_of_the_exporter_passes(graph: str, bundle: Bundle, batch: Batch) -> None:
    _open(bundle, graph, batch)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    "location", ["../secret.bin", "unlisted.bin", "./base.bin", "", "manifest.json", "{bundle}/base.bin"]
)
def test_graph_that_reads_another_file_is_refused(
    graph: str, location: str, bundle: Bundle, batch: Batch
) -> None:
    for copy in ("../secret.bin", "unlisted.bin"):  # of the right size, so that nothing else is wrong
        shutil.copy(bundle.folder / "base.bin", bundle.folder / copy)
    tensor = _outside(location=location.format(bundle=bundle.folder))
    _edit(bundle, graph, lambda model: model.graph.initializer.append(tensor))
    with pytest.raises(BundleInvalid, match=rf"{graph}\.onnx reads a file other than the base weights"):
        _open(bundle, graph, batch)


def test_graph_that_reads_memory_is_refused(bundle: Bundle, batch: Batch) -> None:
    tensor = _outside(location="*/_ORT_MEM_ADDR_/*", offset="4096")
    _edit(bundle, "inference", lambda model: model.graph.initializer.append(tensor))
    with pytest.raises(BundleInvalid, match=r"got \*/_ORT_MEM_ADDR_/\*; expected base\.bin"):
        _open(bundle, "inference", batch)


@pytest.mark.parametrize(
    "told",
    [
        {"offset": "-8"},
        {"offset": "{size}"},
        {"length": "{size}", "offset": "1"},
        {"length": str(2**62)},
        {"length": "8 "},
        {"offset": "0x0"},
        {"offset": ""},
    ],
    ids=str,
)
def test_graph_that_reads_beyond_the_weights_is_refused(
    told: dict[str, str], bundle: Bundle, batch: Batch
) -> None:
    size = bundle.path("base.bin").stat().st_size
    tensor = _outside(**{key: value.format(size=size) for key, value in told.items()})
    _edit(bundle, "inference", lambda model: model.graph.initializer.append(tensor))
    with pytest.raises(BundleInvalid, match=r"inference\.onnx reads beyond the base weights"):
        _open(bundle, "inference", batch)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda tensor: tensor.external_data.pop(), id="no length"),
        pytest.param(
            lambda tensor: tensor.external_data.add(key="location", value="/etc/passwd"), id="two files"
        ),
        pytest.param(
            lambda tensor: tensor.external_data.add(key="other", value="1"), id="what we do not know"
        ),
    ],
)
def test_tensor_whose_place_is_not_plain_is_refused(
    edit: Callable[[TensorProto], object], bundle: Bundle, batch: Batch
) -> None:
    tensor = _outside()
    edit(tensor)
    _edit(bundle, "inference", lambda model: model.graph.initializer.append(tensor))
    with pytest.raises(BundleInvalid, match=r"inference\.onnx cannot be loaded; got a tensor outside"):
        _open(bundle, "inference", batch)


def _in_a_constant(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=tensor))


def _in_a_branch(model: ModelProto, tensor: TensorProto) -> None:
    inner = GraphProto(name="inner", initializer=[tensor])
    branch = GraphProto(name="branch", node=[helper.make_node("If", ["x"], ["y"], then_branch=inner)])
    model.graph.node.append(helper.make_node("If", ["x"], ["y"], else_branch=branch))


def _in_a_sparse_tensor(model: ModelProto, tensor: TensorProto) -> None:
    model.graph.sparse_initializer.append(SparseTensorProto(indices=tensor))


def _in_a_function(model: ModelProto, tensor: TensorProto) -> None:
    node = helper.make_node("Constant", [], ["unused"], value=tensor)
    model.functions.append(onnx.FunctionProto(name="f", domain="d", node=[node]))


def _in_a_default(model: ModelProto, tensor: TensorProto) -> None:
    default = helper.make_attribute("value", tensor)
    model.functions.append(onnx.FunctionProto(name="f", domain="d", attribute_proto=[default]))


@pytest.mark.parametrize(
    "hide", [_in_a_constant, _in_a_branch, _in_a_sparse_tensor, _in_a_function, _in_a_default]
)
def test_file_is_found_wherever_it_is_named(
    hide: Callable[[ModelProto, TensorProto], None], bundle: Bundle, batch: Batch
) -> None:
    _edit(bundle, "inference", lambda model: hide(model, _outside(location="../secret.bin")))
    with pytest.raises(BundleInvalid, match="reads a file other than the base weights"):
        _open(bundle, "inference", batch)


def test_weights_are_found_beside_a_graph_in_a_folder(tiny_bundle: Bundle, tmp_path: Path) -> None:
    graphs = tiny_bundle.manifest.graphs.model_copy(
        update={"inference": "graphs/a.onnx", "base_weights": "weights/base.bin"}
    )
    manifest = tiny_bundle.manifest.model_copy(update={"graphs": graphs})
    for folder in ("graphs", "weights"):
        (tmp_path / folder).mkdir()
    (tmp_path / "weights/base.bin").write_bytes(bytes(8))
    model = ModelProto(graph=GraphProto(initializer=[_outside(location="../weights/base.bin")]))
    (tmp_path / "graphs/a.onnx").write_bytes(model.SerializeToString())
    bundle = Bundle(tmp_path, manifest, "0" * 64)
    assert checked_graph(bundle, "graphs/a.onnx") == tmp_path / "graphs/a.onnx"


def test_name_of_ort_s_own_format_does_not_make_it_that(bundle: Bundle, batch: Batch) -> None:
    # Only what is read as ONNX has been checked.
    os.rename(bundle.path("inference.onnx"), bundle.path("inference.ort"))
    graphs = bundle.manifest.graphs.model_copy(update={"inference": "inference.ort"})
    renamed = replace(bundle, manifest=bundle.manifest.model_copy(update={"graphs": graphs}))
    _open(renamed, "inference", batch)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"garbage" * 9], ids=["cut", "garbage"]
)
def test_bytes_that_are_no_graph_are_refused(
    graph: str, damage: Callable[[bytes], bytes], bundle: Bundle, batch: Batch
) -> None:
    path = bundle.path(getattr(bundle.manifest.graphs, graph))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BundleInvalid, match=rf"{graph}\.onnx cannot be loaded"):
        _open(bundle, graph, batch)


def _rename_input(model: ModelProto) -> None:
    model.graph.input[1].name = "mask2"


def _widen_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_param="more")


def _retype_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _add_input(model: ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("surprise", TensorProto.FLOAT, [1]))


def _other_features(model: ModelProto) -> None:
    name = "base_model.model.encoder.layer.0.attention.self.query.lora_A.weight"
    (value,) = (value for value in model.graph.input if value.name == name)
    value.type.tensor_type.shape.dim[1].dim_value += 1


def _no_output(model: ModelProto) -> None:
    del model.graph.output[:]


@pytest.mark.parametrize("graph", ["training", "eval", "inference"])
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            _rename_input,
            r"inputs of .* differ from the manifest; got \['mask2'\]; expected \['attention_mask'\]",
        ),
        (_add_input, r"inputs of .* differ from the manifest; got \['surprise'\]"),
        (_widen_input, "input_ids of .* differs from the manifest"),
        (_retype_input, "input_ids of .* differs from the manifest"),
        (_other_features, "lora_A.weight of .* differs from the manifest"),
        (_no_output, "outputs of"),
    ],
)
def test_graph_that_differs_from_the_manifest_is_refused_when_it_is_opened(
    graph: str, edit: Callable[[ModelProto], None], message: str, bundle: Bundle, batch: Batch
) -> None:
    _edit(bundle, graph, edit)
    with pytest.raises(BundleInvalid, match=message):
        _open(bundle, graph, batch)


@pytest.mark.parametrize("graph", ["training", "inference"])
def test_manifest_without_inputs_is_refused(graph: str, bundle: Bundle, batch: Batch) -> None:
    empty = replace(bundle, manifest=bundle.manifest.model_copy(update={"inputs": ()}))
    with pytest.raises(BundleInvalid, match="inputs of the manifest"):
        _open(empty, graph, batch)
