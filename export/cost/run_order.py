"""The training graph as ONNX Runtime runs it: after its own rewriting, in its own order."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnx import ModelProto
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions  # type: ignore[import-untyped]

from export.quiet import first_line, quiet_native_code
from hetlora.errors import ModelNotExportable


def graph_as_run(path: Path) -> ModelProto:
    """Open a graph as devices do, and read what the session made of it; weights stay in their file.

    The last level of rewriting is left out: it chooses layouts by the processor at hand, and the same model
    is to give the same bundle everywhere.

    Raises:
        ModelNotExportable: devices could not open it either.
    """
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.add_session_config_entry("session.disable_prepacking", "1")
    with TemporaryDirectory(prefix="hetlora-") as folder, quiet_native_code():
        written = Path(folder) / "as_run.onnx"
        options.optimized_model_filepath = str(written)
        try:
            InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the bindings' exceptions share no base class
            raise ModelNotExportable(
                "ONNX Runtime cannot open the training graph",
                got=first_line(error),
                expected="operators with a kernel for processors, and room for temporary files",
            ) from error
        return onnx.load(written, load_external_data=False)
