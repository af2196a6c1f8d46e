"""Each operator of the training build, run as such and as it is written for ordinary builds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper
from onnxruntime import InferenceSession, SessionOptions

from export.graphs.microsoft import MICROSOFT
from export.plain.operators import FORMS, use_plain_operators
from hetlora.errors import ModelNotExportable

Arrays = tuple[NDArray[Any], ...]
RNG = np.random.default_rng(7)
X, Y, G = (RNG.standard_normal((2, 3, 4)).astype(np.float32) for _ in range(3))
SCALE = RNG.standard_normal(4).astype(np.float32)
DEVIATION = 1 / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
ROOT = 1 / np.sqrt((X**2).mean(-1, keepdims=True) + 1e-6)
SOFTMAX = np.exp(X) / np.exp(X).sum(-1, keepdims=True)
LOG_SOFTMAX = np.log(SOFTMAX[0])
LABELS = np.array([3, 0, 1])


def whole(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers)


@dataclass(frozen=True, slots=True)
class Case:
    """What an operator reads, how many of its outputs are wanted, its attributes, and how many it has."""

    operator: str
    inputs: Arrays
    wanted: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    all_outputs: int | None = None

    def model(self) -> ModelProto:
        inputs = [f"in{place}" for place in range(len(self.inputs))]
        outputs = [f"out{place}" for place in range(self.all_outputs or self.wanted)]
        node = helper.make_node(self.operator, inputs, outputs, domain=MICROSOFT, **self.attributes)
        kinds = [helper.np_dtype_to_tensor_dtype(array.dtype) for array in self.inputs]
        shapes = [array.shape for array in self.inputs]
        answered = [
            onnx.TensorProto.INT64 if self.operator == "ConcatTraining" and place else kind
            for place, kind in enumerate([self._answer_kind()] * self.wanted)
        ]
        graph = helper.make_graph(
            [node],
            "one",
            [helper.make_tensor_value_info(*value) for value in zip(inputs, kinds, shapes, strict=True)],
            [
                helper.make_tensor_value_info(*value, shape=None)
                for value in zip(outputs, answered, strict=False)
            ],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)

    def _answer_kind(self) -> int:
        gradient = next(array for array in self.inputs if array.dtype != np.int64)
        return helper.np_dtype_to_tensor_dtype(gradient.dtype)

    def answers(self, model: ModelProto) -> list[NDArray[Any]]:
        options = SessionOptions()
        options.log_severity_level = 3
        session = InferenceSession(model.SerializeToString(), options)
        fed = [value.name for value in session.get_inputs()]
        answers: list[NDArray[Any]] = session.run(
            None, {name: self.inputs[int(name.removeprefix("in"))] for name in fed}
        )
        return answers


LAST = {"axis": -1}
CASES = (
    Case("ConcatTraining", (X, Y, G[:, :2]), 2, {"axis": 1}),
    Case("ConcatTraining", (X, Y[..., :1]), 2, LAST),
    Case("DivGrad", (G, X, np.abs(Y[..., :1]) + 1), 2),
    Case("FastGeluGrad", (G, 3 * X)),
    Case("GatherElementsGrad", (G, whole(2, 3, 9), RNG.integers(0, 9, (2, 3, 4))), 1, LAST),
    Case("GatherGrad", (whole(2, 5, 4), np.array(1), G[:, 0]), 1, {"axis": 1}),
    Case("GatherGrad", (whole(6, 4), np.array([[5, 1, 5], [5, 0, 2]]), G), 1, {"axis": 0}),
    Case("GeluGrad", (G, 3 * X)),
    Case("LayerNormalizationGrad", (G, X, SCALE, X.mean(-1, keepdims=True), DEVIATION), 1, LAST, 3),
    Case("QuickGeluGrad", (G, X), 1, {"alpha": 1.0}),
    Case("ReluGrad", (G, np.maximum(X, 0))),
    Case("SimplifiedLayerNormalizationGrad", (G, X, SCALE, ROOT), 1, LAST, 2),
    Case("SliceGrad", (G[:, 1:], whole(2, 5, 4), whole(2), whole(4), whole(1), whole(1))),
    Case("SliceGrad", (G[..., 1:], whole(2, 3, 9), whole(-3), whole(2**40), whole(-1), whole(1))),
    Case("SliceGrad", (G[:1, :2], whole(3, 3, 4), whole(1, 0), whole(2, 2), whole(0, 1))),
    Case(
        "SoftmaxCrossEntropyLossGrad",
        (np.array(0.5, np.float32), LOG_SOFTMAX, LABELS),
        1,
        {"reduction": "mean"},
    ),
    Case("SoftmaxGrad_13", (G, SOFTMAX), 1, LAST),
    Case("SplitTraining", (X, whole(1, 3)), 2, LAST),
    Case("TanhGrad", (G, np.tanh(X))),
)


def constant_steps(model: ModelProto, case: Case) -> ModelProto:
    """The steps of a slice are constants of the models' graphs, and not computed."""
    if case.operator == "SliceGrad" and len(case.inputs) == 6:
        model.graph.initializer.append(onnx.numpy_helper.from_array(case.inputs[5], "in5"))
    return model


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.operator)
def test_plain_form_answers_what_the_training_builds_kernel_does(case: Case) -> None:
    expected = case.answers(case.model())
    plain = constant_steps(case.model(), case)
    use_plain_operators(plain)
    assert {node.op_type for node in plain.graph.node}.isdisjoint(FORMS)
    for own, kernels in zip(case.answers(plain), expected, strict=True):
        np.testing.assert_allclose(own, kernels.reshape(own.shape), rtol=2e-5, atol=2e-6)


def test_every_form_is_held_by_a_case() -> None:
    assert {*(case.operator for case in CASES), "PassThrough"} == FORMS.keys()


def test_barrier_answers_what_it_reads() -> None:
    case = Case("PassThrough", (X, Y[0], G), 2, {}, 3)
    model = case.model()
    use_plain_operators(model)
    first, second = case.answers(model)
    np.testing.assert_array_equal(first, X)
    np.testing.assert_array_equal(second, Y[0])


def test_outputs_that_a_node_does_not_have_are_not_made() -> None:
    case = Case("DivGrad", (G, X, np.abs(Y[..., :1]) + 1), 1)
    model = case.model()
    use_plain_operators(model)
    np.testing.assert_allclose(case.answers(model)[0], G / (np.abs(Y[..., :1]) + 1), rtol=1e-6)
    concat = Case("ConcatTraining", (X, Y), 1, {"axis": 1})
    model = concat.model()
    use_plain_operators(model)
    np.testing.assert_array_equal(concat.answers(model)[0], np.concatenate([X, Y], 1))


def test_steps_of_a_slice_in_a_constant_of_another_kind_are_refused() -> None:
    case = Case("SliceGrad", (G[:, 1:], whole(2, 5, 4), whole(0), whole(4), whole(1), whole(1)))
    model = case.model()
    steps = helper.make_node("Constant", [], ["in5"], value_ints=[1])
    model.graph.node.insert(0, steps)
    del model.graph.input[5]
    with pytest.raises(ModelNotExportable, match="steps"):
        use_plain_operators(model)


def test_gradient_of_a_lookup_adds_up_where_a_row_is_read_twice() -> None:
    rows = np.array([[1, 2], [10, 20], [100, 200]], np.float32)
    case = Case("GatherGrad", (whole(3, 2), whole(2, 0, 2), rows), 1, {"axis": 0})
    model = case.model()
    use_plain_operators(model)
    assert case.answers(model)[0].tolist() == [[10, 20], [0, 0], [101, 202]]


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (Case("SoftmaxGrad_13", (G, SOFTMAX), 1, {"axis": 1}), "axis 1"),
        (Case("SliceGrad", (G[:, 1:], whole(2, 5, 4), whole(0), whole(4), whole(1), whole(2))), "steps"),
        (Case("FastGeluGrad", (G, X, SCALE)), "a bias"),
        (Case("SimplifiedLayerNormalizationGrad", (G, X, SCALE, ROOT), 2, LAST), "out1"),
        (Case("DivGrad", (G, X, SCALE), 2), r"\(4,\)"),
        (Case("GatherGrad", (whole(2, 5, 4), np.array(1), G[:, 0]), 1, {"axis": -2}), "axis -2"),
        (
            Case("SoftmaxCrossEntropyLossGrad", (np.array(1, np.float32), LOG_SOFTMAX, LABELS, SCALE), 1),
            "class weights",
        ),
        (Case("DivGrad", (G, np.array(2, np.float32), Y[..., :1]), 2), r"\(\) over"),
        (Case("DivGrad", (G, X)), "2 inputs.*expected 3"),
        (Case("TanhGrad", (G,)), "1 inputs.*expected 2"),
        (Case("SliceGrad", (G[:, 1:], whole(2, 5, 4), whole(0), whole(4))), "4 inputs.*expected 5 to 6"),
        (Case("LayerNormalizationGrad", (G, X, SCALE, DEVIATION), 1, LAST, 3), "4 inputs.*expected 5"),
        (Case("GatherGrad", (whole(2, 5, 4), G[:, 0]), 1, {"axis": 1}), "2 inputs.*expected 3"),
        (Case("BiasGeluGrad_dX", (G, X, SCALE)), "BiasGeluGrad_dX .* is of ONNX Runtime's training build"),
    ],
    ids=lambda value: value.operator if isinstance(value, Case) else "",
)
def test_what_has_no_plain_form_is_refused_by_name(case: Case, words: str) -> None:
    with pytest.raises(ModelNotExportable, match=words):
        use_plain_operators(constant_steps(case.model(), case))
