"""Processes of one machine give the bits of one process, and outlive each other."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from cases import CASES
from engine_rounds import Deadly, Lost, bits, stored_round

from aggregator_service.aggregation.engines.local import LocalEngine
from aggregator_service.aggregation.robust.defence import defend
from aggregator_service.aggregation.tree import finish, leaves, reduce_leaf
from aggregator_service.worker.stored_updates import UnreadableUpdate
from hetlora.errors import ServiceFailed, StateConflict
from hetlora.messages.defence import Defence
from hetlora.messages.rules import HetLoraRule

# Ten leaves of 128 updates, the last one not full: more than one digit of the counter.
COUNT = 9 * 128 + 70


@pytest.mark.parametrize("name", CASES)
def test_leaves_that_come_from_elsewhere_give_the_same_bits(name: str, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, CASES[name].rule, 2 * 128 + 40)
    elsewhere = pickle.loads(pickle.dumps((rule, source)))
    subtotals = [
        pickle.loads(pickle.dumps(reduce_leaf(elsewhere[0], part, elsewhere[1].load)))
        for part in leaves(refs)
    ]
    assert bits(finish(rule, refs, subtotals)) == bits(LocalEngine().aggregate(rule, refs, source))


@pytest.mark.parametrize("method", ["none", "geometric_median", "trimmed_mean"])
def test_defended_updates_are_the_same_elsewhere(method: str, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), 2 * 128 + 40)
    defended = defend(
        Defence.model_validate({"method": method, "clip": True, "quorum": 3}), refs, source.load
    )
    treated = defended.source(source)
    elsewhere = pickle.loads(pickle.dumps(treated))
    subtotals = (reduce_leaf(rule, part, elsewhere.load) for part in leaves(defended.refs))
    expected = LocalEngine().aggregate(rule, defended.refs, treated)
    assert bits(finish(rule, defended.refs, subtotals)) == bits(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hetlora", "rbla", "flexlora", "residual_exact"])
def test_any_number_of_workers_and_any_order_of_arrival_give_the_same_bits(name: str, tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, CASES[name].rule, COUNT)
    expected = bits(LocalEngine(1).aggregate(rule, refs, source))
    for workers in (1, 2, 4):
        random.Random(workers).shuffle(refs)
        assert bits(LocalEngine(workers).aggregate(rule, refs, source)) == expected


@pytest.mark.slow
def test_round_goes_on_when_a_worker_is_killed(tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    deadly = Deadly(source, tmp_path / "died", sorted(refs)[200])
    result = LocalEngine(2).aggregate(rule, refs, deadly)
    assert deadly.marker.exists()
    assert bits(result) == bits(LocalEngine(1).aggregate(rule, refs, source))


@pytest.mark.slow
def test_round_ends_when_workers_die_of_it_again_and_again(tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    deadly = Deadly(source, tmp_path / "died", sorted(refs)[200], always=True)
    with pytest.raises(ServiceFailed, match="worker processes of the aggregation die"):
        LocalEngine(2).aggregate(rule, refs, deadly)


@pytest.mark.slow
def test_update_that_a_worker_cannot_read_is_named(tmp_path: Path) -> None:
    rule, refs, source = stored_round(tmp_path, HetLoraRule(), COUNT)
    victim = sorted(refs)[-1]
    for workers in (1, 2):
        with pytest.raises(UnreadableUpdate) as caught:
            LocalEngine(workers).aggregate(rule, refs, Lost(source, victim))
        assert caught.value.sha256 == victim.sha256


AGGREGATE_WITHOUT_END = """
import sys
from pathlib import Path
from cases import CASES
from engine_rounds import Stuck, stored_round
from aggregator_service.aggregation.engines.local import LocalEngine
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rule, refs, _ = stored_round(folder, CASES["hetlora"].rule, 3 * 128)
    LocalEngine(2).aggregate(rule, refs, Stuck(folder / "pids"))
"""


@pytest.mark.slow
def test_workers_die_with_their_service(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "aggregate.py"
    script.write_text(AGGREGATE_WITHOUT_END)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], env=environment) as service:
        wait_until(lambda: len(list(pids.iterdir())) == 2)
        service.kill()
    workers = [int(path.name) for path in pids.iterdir()]
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in workers))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_round_without_updates_is_refused(tmp_path: Path) -> None:
    rule, _, source = stored_round(tmp_path, HetLoraRule(), 1)
    with pytest.raises(StateConflict):
        LocalEngine(2).aggregate(rule, [], source)
