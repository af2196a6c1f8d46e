"""A bundle of two runtimes at a real service: a device fetches what its own opens, and works with that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from device_clock import Clock
from faulty_proxy import Waiting
from parity import batch_for, export_family
from real_service import TOKEN, real_service
from strong_device import STRONG
from tiny_families import write_tiny_family

from edge_sdk import Adoption, EdgeClient, Visit
from edge_sdk.events import Downloaded, Event
from edge_sdk.examples import Example
from edge_sdk.runtimes import RUNTIMES, open_model, runtime_here, runtime_named, runtimes_with_files
from edge_sdk.runtimes.onnx import OnnxModel
from edge_sdk.runtimes.pytorch import PytorchModel
from hetlora.bundle import Bundle, open_bundle
from hetlora.cli.operator import Operator
from hetlora.errors import BundleInvalid
from hetlora.manifest import MANIFEST_NAME
from hetlora.messages.device import TrainingSettings
from hetlora.messages.evaluation import EvaluationSettings
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.states import RunState

EXAMPLES = [Example("snow rain sun", "weather"), Example("bread soup", "food"), Example("ball goal", "sport")]
MODELS = {"onnx": OnnxModel, "pytorch": PytorchModel}
# Of files, by runtime, beside the weights and the tokenizer that both read.
OWN = {
    "onnx": {"training.onnx", "eval.onnx", "inference.onnx"},
    "pytorch": {"config.json", "weights.json"},
}
SHARED = {"base.bin", "tokenizer.json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    root = tmp_path_factory.mktemp("bert")
    model = write_tiny_family(root / "model", "bert")
    return export_family("bert", model, root / "bundle", runtimes=("onnx", "pytorch"))


@dataclass
class Stage:
    """A population of a real service, and what devices of it fetch."""

    url: str
    enrolment_token: str
    operator: Operator
    bundle: Bundle
    folder: Path
    clock: Clock
    fetched: list[str] = field(default_factory=list)

    def client(self, runtime: str) -> EdgeClient:
        client = EdgeClient(
            self.url,
            "fleet",
            self.folder,
            enrolment_token=self.enrolment_token,
            capabilities=STRONG,
            threads=1,
            adoption=Adoption("if_not_worse", tolerance=10.0),
            runtime=runtime_named(runtime),
            on_event=self._note,
            clock=self.clock,
        )
        client.examples.put_many(EXAMPLES)
        client.held_out.put_many(EXAMPLES)
        return client

    def run(self, client: EdgeClient) -> list[Visit]:
        """Two rounds of a run and an evaluation, of one device."""
        settings = RunSettings(
            rounds=2,
            goal_count=1,
            over_selection=1.0,
            max_rank=4,
            training=TrainingSettings(steps=2, batch_size=2, max_tokens=16, evaluate=True),
            evaluation=EvaluationSettings(devices=2, minimum_reports=2),
        )
        run = self.operator.create_run(
            RunCreate(population="fleet", bundle=self.bundle.digest, settings=settings)
        )
        self.operator.move_run(run.run_id, "start")
        visits: list[Visit] = []

        def is_over() -> bool:
            state = self.operator.run(run.run_id).state
            return state is RunState.COMPLETED and any(visit.evaluation for visit in visits)

        client.run_forever(stop=Waiting(self.clock, is_over), on_visit=visits.append)
        assert {visit.outcome for visit in visits} <= {"accepted", "no_work"}, visits
        return [visit for visit in visits if visit.outcome == "accepted"]

    def bytes_of(self, names: set[str]) -> int:
        return sum(self.bundle.manifest.files[name].size_bytes for name in names)

    def _note(self, event: Event) -> None:
        if isinstance(event, Downloaded) and event.name in {MANIFEST_NAME, *self.bundle.manifest.files}:
            self.fetched.append(event.name)


@pytest.fixture
def stage(tmp_path: Path, bundle: Bundle) -> Iterator[Stage]:
    clock = Clock()
    with real_service(tmp_path / "data", clock) as url, Operator(url, TOKEN) as operator:
        token = operator.create_population("fleet").enrolment_token
        operator.publish_bundle(bundle)
        yield Stage(url, token, operator, bundle, tmp_path / "device", clock)


def _check_it_answers_with(client: EdgeClient, bundle: Bundle, runtime: str) -> None:
    model = client.adapters.model()
    assert type(model) is MODELS[runtime]
    assert np.isfinite(model.logits(batch_for(bundle))).all()


@pytest.mark.parametrize(("first", "second"), [("onnx", "pytorch"), ("pytorch", "onnx")])
def test_device_fetches_what_its_runtime_opens_and_the_rest_when_another_asks(
    stage: Stage, first: str, second: str
) -> None:
    with stage.client(first) as client:
        visits = stage.run(client)
        assert sorted(stage.fetched) == sorted({MANIFEST_NAME} | SHARED | OWN[first])
        assert visits[0].choice is not None
        assert visits[0].choice.forecast.bundle_bytes == stage.bytes_of(SHARED | OWN[first])
        _check_it_answers_with(client, stage.bundle, first)
        comparison = client.adapters.last_comparison()
        assert comparison is not None
        assert comparison.new_held_out is not None, comparison.reason
        assert comparison.in_use_held_out is not None, comparison.reason
    stage.fetched.clear()
    with stage.client(second) as client:
        visits = stage.run(client)
        assert set(stage.fetched) == OWN[second]
        assert visits[0].choice is not None
        assert visits[0].choice.forecast.bundle_bytes == stage.bytes_of(OWN[second])
        _check_it_answers_with(client, stage.bundle, "onnx")  # which is preferred where both could
    with stage.client(first) as client:
        stage.fetched.clear()
        stage.run(client)
        assert stage.fetched == []


def _part_of(bundle: Bundle, folder: Path, names: set[str]) -> Bundle:
    folder.mkdir()
    for name in {MANIFEST_NAME, *names}:
        (folder / name).symlink_to(bundle.path(name))
    return open_bundle(folder, verify=False)


def test_runtime_without_its_files_gives_way_to_one_that_has_them(bundle: Bundle, tmp_path: Path) -> None:
    onnx, pytorch = runtime_named("onnx"), runtime_named("pytorch")
    part = _part_of(bundle, tmp_path / "part", SHARED | OWN["pytorch"])
    assert runtimes_with_files(part) == ["pytorch"]
    assert runtime_here(part, onnx) is runtime_here(part, None) is pytorch
    assert runtime_here(bundle, pytorch) is pytorch
    assert runtime_here(bundle, None) is onnx


def test_bundle_with_the_files_of_no_runtime_says_which_is_missing(bundle: Bundle, tmp_path: Path) -> None:
    part = _part_of(bundle, tmp_path / "part", SHARED)
    assert runtimes_with_files(part) == []
    with pytest.raises(BundleInvalid, match=r"inference\.onnx"):
        open_model(part)


def test_every_file_but_the_optimizer_graph_is_some_runtimes(bundle: Bundle) -> None:
    served = [name for name in RUNTIMES if name != "executorch"]
    named = set().union(*map(bundle.manifest.files_of, served))
    assert bundle.manifest.files.keys() - named == {"optimizer.onnx"}
    with pytest.raises(BundleInvalid, match="the bundle has no files for executorch"):
        bundle.manifest.files_of("executorch")
