"""The Kotlin client on a Java machine: how it is compiled and found, and a training as a process of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from hetlora.adapter import Adapter
from hetlora.bundle import Bundle
from hetlora.errors import DependencyMissing, HetloraError
from hetlora.manifest import has_decoder
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import factor_keys, to_tensors

CLIENT: Final = Path(__file__).parents[2] / "android_demo"
# What is published for desktop Java; `build.py` fetches it.
PUBLISHED: Final = CLIENT / ".toolchain" / "onnxruntime" / "upstream"
KILLED: Final = 137  # the exit status that a case may ask for
_SECONDS: Final = 540.0


@dataclass(frozen=True, slots=True)
class Jvm:
    """The compiled client, its tests' program among it, and the folder of ONNX Runtime's native libraries."""

    class_path: str
    native: Path
    flags: Sequence[str] = ("-Xmx2g",)

    @classmethod
    def compiled(cls) -> Self:
        """Compile what is not compiled yet, on what is published for desktop Java.

        Raises:
            DependencyMissing: no Java, or no toolchain; the message says what is missing.
        """
        if shutil.which("java") is None:
            raise DependencyMissing(
                "no Java here", expected="a JDK of 17 or newer: apt-get install default-jdk"
            )
        return cls(told_by("build.py", "trainer-ort", "--class-path")[-1], PUBLISHED)

    def train(self, folder: Path) -> int:
        """Train the case of a folder, which then has `answer.json`; the exit status, 0 or KILLED.

        Raises:
            HetloraError: the client failed.
        """
        command = ["java", *self.flags, f"-Donnxruntime.native.path={self.native}", "-cp", self.class_path]
        command += ["dev.hetlora.ort.TrainingCaseKt", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
        if done.returncode not in (0, KILLED):
            raise HetloraError("the Kotlin client failed", got=done.stderr[-2000:].strip())
        return done.returncode


def told_by(script: str, *arguments: str) -> list[str]:
    """The lines that a script of `android_demo/ci` prints.

    Raises:
        DependencyMissing: it failed; it says what is missing.
    """
    command = [sys.executable, str(CLIENT / "ci" / script), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DependencyMissing("the Kotlin client cannot be compiled", got=last)
    return done.stdout.strip().splitlines()


def write_case(
    folder: Path,
    bundle: Bundle,
    adapter: Adapter,
    settings: TrainingSettings,
    batches: Sequence[Mapping[str, NDArray[Any]]],
    **changes: object,
) -> None:
    """Write what TrainingCase.kt reads; the batches come in turn.

    `changes` are fields of the case other than here: `micro_batch`, and `killed_after` for tests alone.

    Raises:
        HetloraError: the bundle has no files for Android.
    """
    manifest = bundle.manifest
    if manifest.android is None:
        raise HetloraError("the bundle has no files for android", expected="hetlora export --runtime android")
    case = {
        "gradients": str(bundle.path(manifest.android.gradients)),
        "eval": str(bundle.path(manifest.graphs.eval)),
        "inference": None if has_decoder(manifest.task) else str(bundle.path(manifest.graphs.inference)),
        "inputs": {tensor.name: tensor.dtype for tensor in manifest.inputs},
        "max_tokens": manifest.max_tokens,
        "classes": len(manifest.labels) or manifest.generation.vocabulary,  # type: ignore[union-attr]
        "generates": manifest.generates,
        "has_decoder": has_decoder(manifest.task),
        "micro_batch": None,
        "settings": json.loads(settings.model_dump_json()),
        "factors": {key: _packed(own) for key, own in to_tensors(adapter).items()},
        "trained": [factor_keys(name) for name in manifest.trained],
        "batches": [{name: _packed(own) for name, own in batch.items()} for batch in batches],
        "killed_after": None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "case.json").write_text(json.dumps(case | changes))


def answer_in(folder: Path) -> dict[str, Any]:
    """What the client made of the case of a folder."""
    answer: dict[str, Any] = json.loads((folder / "answer.json").read_text())
    return answer


def _packed(array: NDArray[Any]) -> dict[str, object]:
    array = np.ascontiguousarray(array)
    return {"dtype": str(array.dtype), "shape": list(array.shape), "hex": array.tobytes().hex()}
