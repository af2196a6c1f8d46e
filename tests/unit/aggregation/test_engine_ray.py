"""A Ray cluster gives the bits of one process, whichever of its workers die."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cases import CASES
from engine_rounds import Deadly, Lost, bits, stored_round
from keeping import Keeping

from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.worker.stored_updates import UnreadableUpdate
from hetlora.errors import ServiceFailed, SettingsError, StateConflict
from hetlora.messages.rules import HetLoraRule

pytest.importorskip("ray", reason="ray is not installed")

from ray.cluster_utils import Cluster

from aggregator_service.aggregation.engines.ray_cluster import RayEngine

pytestmark = pytest.mark.slow
OBJECT_STORE_BYTES = 100_000_000
COUNT = 9 * 128 + 70


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes, each with processes and an object store of its own."""
    # Workers import the sources of these tests.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    nodes = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "object_store_memory": OBJECT_STORE_BYTES,
            "include_dashboard": False,
        },
    )
    nodes.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
    nodes.wait_for_nodes()
    yield str(nodes.address)
    nodes.shutdown()
    monkeypatch.undo()


@pytest.fixture(scope="module")
def engine(cluster: str) -> Iterator[RayEngine]:
    with closing(RayEngine(2, cluster)) as opened:
        yield opened


def test_cluster_goes_on_with_what_another_process_reached(engine: RayEngine, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), 2 * 128 + 40)
    first, alone = Keeping(), Keeping()
    expected = bits(LocalEngine(1).aggregate(rule, refs, source, alone))
    assert bits(engine.aggregate(rule, refs, source, first)) == expected
    assert first.kept == alone.kept
    lost = Lost(source, sorted(refs)[0])  # is not read again
    assert bits(engine.aggregate(rule, refs, lost, Keeping(2, first.kept))) == expected


@pytest.mark.parametrize("name", CASES)
def test_cluster_gives_the_bits_of_one_process(engine: RayEngine, name: str, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, CASES[name].rule, 2 * 128 + 40)
    expected = bits(LocalEngine(1).aggregate(rule, refs, source))
    random.Random(name).shuffle(refs)
    assert bits(engine.aggregate(rule, refs, source)) == expected


def test_round_goes_on_when_a_worker_is_killed(engine: RayEngine, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    deadly = Deadly(source, tmp_path / "died", sorted(refs)[200])
    result = engine.aggregate(rule, refs, deadly)
    assert deadly.marker.exists()
    assert bits(result) == bits(LocalEngine(1).aggregate(rule, refs, source))


def test_round_ends_when_workers_die_of_it_again_and_again(engine: RayEngine, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    deadly = Deadly(source, tmp_path / "died", sorted(refs)[200], always=True)
    with pytest.raises(ServiceFailed, match="the Ray cluster fails"):
        engine.aggregate(rule, refs, deadly)


def test_update_that_a_worker_cannot_read_is_named(engine: RayEngine, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    victim = sorted(refs)[-1]
    with pytest.raises(UnreadableUpdate) as caught:
        engine.aggregate(rule, refs, Lost(source, victim))
    assert caught.value.sha256 == victim.sha256


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:many", "127.0.0.1:99999"])
def test_address_where_no_cluster_answers_is_refused_at_once(address: str) -> None:
    with pytest.raises(SettingsError, match="no Ray cluster answers"):
        RayEngine(1, address)


def test_round_without_updates_is_refused(engine: RayEngine, tmp_path: Path) -> None:
    rule, _, source = stored_round(tmp_path, HetLoraRule(), 1)
    with pytest.raises(StateConflict):
        engine.aggregate(rule, [], source)
