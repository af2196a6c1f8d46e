"""What training in ONNX Runtime does to the process: its threads, and what it imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from trainers import trainer_of

from edge_sdk.runtimes.base import Batch
from hetlora.adapter import Adapter
from hetlora.bundle import Bundle

MakeAdapter = Callable[[int], Adapter]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted in Linux's /proc")
def test_one_thread_means_the_callers_own(
    tiny_bundle: Bundle, trained_adapter: MakeAdapter, batch: Batch
) -> None:
    def new_threads(threads: int) -> int:
        before = set(os.listdir("/proc/self/task"))
        trainer = trainer_of(tiny_bundle, trained_adapter(2), threads=threads)
        trainer.step(batch)
        return len(set(os.listdir("/proc/self/task")) - before)

    assert new_threads(1) == 0
    cores = os.cpu_count() or 1  # never more than one thread a core
    assert new_threads(10**6) == cores - 1


TRAIN_AND_CLASSIFY = """
import sys
from pathlib import Path
import numpy as np
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import initial_adapter
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import to_tensors

bundle = open_bundle(Path(sys.argv[1]))
adapter = initial_adapter(bundle.manifest.adapter, 2, np.random.default_rng(0))
tokens = np.array([[2, 4, 5, 3], [2, 6, 7, 3]])
batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
trainer = open_trainer(OnnxRuntime, bundle, adapter, TrainingSettings(), threads=1)
trainer.step({**batch, "labels": np.array([0, 1])})
OnnxModel(bundle, to_tensors(trainer.adapter())).logits(batch)
heavy = {"torch", "transformers", "optimum", "onnx", "onnxruntime.training", "onnxruntime.training.ortmodule"}
print(sorted(heavy & sys.modules.keys()))
"""


def test_training_and_inference_import_neither_torch_nor_onnx_though_they_are_installed(
    tiny_bundle: Bundle,
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TRAIN_AND_CLASSIFY, str(tiny_bundle.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


LITTLE_MEMORY = """
import resource
import sys
from pathlib import Path
import numpy as np
import psutil
from edge_sdk.runtimes.onnx import OnnxModel, OnnxRuntime
from edge_sdk.training.trainer import open_trainer
from hetlora.adapter import initial_adapter
from hetlora.bundle import open_bundle
from hetlora.messages.device import TrainingSettings

bundle = open_bundle(Path(sys.argv[1]))
adapter = initial_adapter(bundle.manifest.adapter, 2, np.random.default_rng(0))
tokens = np.full((64, 32), 5)
batch = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
labelled = {**batch, "labels": np.zeros(len(tokens), np.int64)}
trainer = open_trainer(OnnxRuntime, bundle, adapter, TrainingSettings(), threads=1)
model = OnnxModel(bundle, threads=1)
held = psutil.Process().memory_info().data
resource.setrlimit(resource.RLIMIT_DATA, (held + 2**18, held + 2**18))
for work in (lambda: trainer.step(labelled), lambda: trainer.evaluate(labelled), lambda: model.logits(batch)):
    try:
        work()
    except Exception as error:
        print(type(error).__name__, repr(error.__cause__))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no kernel holds a process to such a limit")
def test_lack_of_memory_is_told_as_such_and_not_as_a_fault_of_the_batch(tiny_bundle: Bundle) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(tiny_bundle.folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    print(done.stdout)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["MemoryError"] * 3
