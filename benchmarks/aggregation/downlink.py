"""A new adapter version, asked for at every rank: the first time each, and again."""

from __future__ import annotations

import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from sqlalchemy import func, select

from aggregator_service.artifacts.handouts import handout
from aggregator_service.artifacts.publishing import publish
from aggregator_service.devices.populations import create_population
from aggregator_service.rounds.runs import create_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.tables import HandoutRow, RunRow
from benchmarks.aggregation.served import timed
from benchmarks.gemma_adapters import gemma_spec
from hetlora.adapter import AdapterSpec
from hetlora.cost import CostModel, StepCost
from hetlora.manifest import BaseModelInfo, GraphFiles, Manifest, OptimizerInfo, TensorInput, ToolVersions
from hetlora.messages.common import ObjectRef
from hetlora.messages.fleet import PopulationCreate
from hetlora.messages.management import RunCreate, RunSettings

POPULATION = "fleet"


def run_downlink(config: dict[str, Any]) -> dict[str, Any]:
    """Seconds of the first and of the second answer at each rank, and the memory that a first one takes."""
    ranks = range(1, config["ranks"] + 1)
    with _service() as service:
        bundle = _publish(service, gemma_spec(config["ranks"]))
        version = _version(service, bundle, config["ranks"], seed=0)
        refs: list[ObjectRef] = []
        first = [timed(partial(_sent, service, version, rank, refs)) for rank in ranks]
        again = [timed(partial(_sent, service, version, rank, refs)) for rank in ranks]
        assert refs[: len(ranks)] == refs[len(ranks) :], "the same rank is the same object"
        other = _version(service, bundle, config["ranks"], seed=1)
        copies = [_peak_bytes(service, other, rank) / refs[rank - 1].size_bytes for rank in ranks]
        again_bytes = max(_peak_bytes(service, other, rank) for rank in ranks)
        with service.database.read() as session:
            stored = session.scalar(select(func.count()).select_from(HandoutRow))
    return {
        "ranks": len(ranks),
        "first_seconds": median(one.seconds for one in first),
        "cached_seconds": median(one.seconds for one in again),
        "adapter_bytes": [ref.size_bytes for ref in refs[: len(ranks)]],
        "stored_objects": stored,
        "peak_bytes_over_adapter": copies,
        "cached_peak_bytes": again_bytes,
    }


def _sent(service: Service, version: str, rank: int, into: list[ObjectRef]) -> None:
    into.append(handout(service, version, rank, seed=0).adapter)


def _peak_bytes(service: Service, version: str, rank: int) -> int:
    """The most memory of Python and numpy that was allocated while one answer was made."""
    tracemalloc.start()
    try:
        _sent(service, version, rank, [])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@contextmanager
def _service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="hetlora-bench-") as folder,
        closing(open_service(Settings(data_dir=Path(folder)))) as service,
    ):
        create_population(service, PopulationCreate(name=POPULATION))
        yield service


def _version(service: Service, bundle: str, max_rank: int, seed: int) -> str:
    """The first adapter version of a new run."""
    settings = RunSettings(goal_count=1, max_rank=max_rank, seed=seed)
    run = create_run(service, RunCreate(population=POPULATION, bundle=bundle, settings=settings))
    with service.database.read() as session:
        version = session.get_one(RunRow, run).adapter_version
    assert version is not None
    return version


def _publish(service: Service, spec: AdapterSpec) -> str:
    """A bundle of this specification, all of whose files are the same few bytes."""
    file = service.objects.put(b"no model")
    names = GraphFiles(
        training="training.onnx",
        eval="eval.onnx",
        optimizer="optimizer.onnx",
        inference="inference.onnx",
        base_weights="base.bin",
        tokenizer="tokenizer.json",
    )
    step = StepCost(per_token=1)
    manifest = Manifest(
        schema_version=1,
        task="text-classification",
        labels=("no", "yes"),
        max_tokens=512,
        base_model=BaseModelInfo(id="gemma-shaped", revision=None, sha256="0" * 64, parameters=1),
        adapter=spec,
        inputs=(TensorInput(name="input_ids", dtype="int64", shape=("batch", "tokens")),),
        optimizer=OptimizerInfo(name="AdamW", beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0.0),
        graphs=names,
        cost_model=CostModel(
            flops=step,
            written_bytes=step,
            live_bytes=(step,),
            most_chunk_rows=0,
            graph_nodes=1,
            base_weight_bytes=1,
            adapter_bytes_per_rank=4 * spec.parameters_per_rank,
        ),
        versions=ToolVersions(hetlora="0", onnx="0", onnxruntime="0", opset=17, ir_version=9),
        files={name: file for name in names.model_dump().values() if name},
    )
    digest = service.objects.put(manifest.to_json()).sha256
    publish(service, digest)
    return digest
