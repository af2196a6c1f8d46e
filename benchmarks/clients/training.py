"""One training that every client is given: the same bundle, adapter, settings and examples, in a folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.clients.batches import batch_of
from benchmarks.clients.jvm import write_case
from benchmarks.device.examples import examples_of
from benchmarks.peers.training_step import nonzero_adapter
from benchmarks.step_shapes import Shape
from edge_sdk.examples.kinds import Example
from hetlora.bundle import Bundle
from hetlora.errors import SettingsError
from hetlora.manifest import reads_images
from hetlora.messages.device import TrainingSettings
from hetlora.tensors import adapter_from_bytes, adapter_to_bytes


@dataclass(frozen=True, slots=True)
class Training:
    """So many steps of a bundle at a rank; all examples make one batch."""

    bundle: Bundle
    rank: int
    shape: Shape
    steps: int
    seed: int

    @property
    def settings(self) -> TrainingSettings:
        """What a run asks for, in these sizes."""
        return TrainingSettings(steps=self.steps, batch_size=self.shape.batch, max_tokens=self.shape.tokens)

    def write(self, folder: Path) -> None:
        """Write what the clients read: `case.json` for Python and the browser, `jvm/case.json` for Kotlin.

        Raises:
            SettingsError: not every client learns from what the model reads, or it is too small for this.
        """
        manifest = self.bundle.manifest
        if reads_images(manifest.task):
            raise SettingsError("the model", got=manifest.task, expected="one that learns from texts")
        if self.rank > manifest.adapter.max_rank or self.shape.tokens > manifest.max_tokens:
            most = f"at most rank {manifest.adapter.max_rank} and {manifest.max_tokens} tokens"
            raise SettingsError("the bundle", got=f"rank {self.rank}, {self.shape}", expected=most)
        folder.mkdir(parents=True)
        (folder / "bundle").symlink_to(self.bundle.folder.absolute())
        (folder / "settings.json").write_text(self.settings.model_dump_json())
        stored = adapter_to_bytes(
            nonzero_adapter(manifest.adapter, self.rank, np.random.default_rng(self.seed))
        )
        (folder / "adapter.safetensors").write_bytes(stored)
        examples = examples_of(manifest, self.shape.batch, words=self.shape.tokens)
        told = [{"text": own.text, "label": own.label} for own in examples if isinstance(own, Example)]
        case: dict[str, object] = {"examples": told, "adaptation": {}, "micro_batch": None}
        (folder / "case.json").write_text(json.dumps(case))
        adapter = adapter_from_bytes(stored, manifest.adapter)
        batch = dict(batch_of(self.bundle, told, self.settings))
        write_case(folder / "jvm", self.bundle, adapter, self.settings, [batch])
