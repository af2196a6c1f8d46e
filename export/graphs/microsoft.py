"""The operators of ONNX Runtime's own domain."""

from __future__ import annotations

from typing import Final

from onnx import ModelProto, helper

MICROSOFT: Final = "com.microsoft"


def use_microsoft_operators(model: ModelProto) -> None:
    """Allow the operators of ONNX Runtime's own domain."""
    if all(entry.domain != MICROSOFT for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
