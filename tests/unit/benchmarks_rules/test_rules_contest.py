"""The contest of the rules: who gets which data and ranks, what bytes count, and how rows come about."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.stacks import stacked
from benchmarks.rules.contest import ENTRANTS, Curve, score_at, tail_energy
from benchmarks.rules.report import rows_of
from benchmarks.rules.simulation import whole
from benchmarks.rules.trials import run_trials
from benchmarks.tasks.clients import RANK_SHARES, deal, ranked
from benchmarks.tasks.turns import personas_of
from edge_sdk.examples import Example
from hetlora.adapter import Adapter, AdapterSpec, LoraFactors, ModuleSpec
from hetlora.errors import DataError

SPEC = AdapterSpec((ModuleSpec("key", 3, 5),), scaling=1.0, max_rank=3)
EXAMPLES = [Example(f"text {number}", f"label {number % 7}") for number in range(210)]


def adapter(rank: int) -> Adapter:
    return Adapter(SPEC, {"key": LoraFactors(np.eye(rank, 3), np.eye(5, rank))})


def test_trials_after_one_that_failed_are_not_run(tmp_path: Path) -> None:
    """Making a folder is the trial, its mode the seed; a few lie in the pool's queue already."""
    missing, others = tmp_path / "no folder" / "own", [tmp_path / str(number) for number in range(50)]

    with pytest.raises(FileNotFoundError):
        run_trials(os.mkdir, [str(path) for path in (missing, *others)], [0o700], processes=1)

    assert not others[-1].exists()


def test_every_example_is_dealt_to_one_client() -> None:
    held = deal(EXAMPLES, 10, 0.1, seed=3)
    assert sorted(example.text for own in held for example in own) == sorted(e.text for e in EXAMPLES)
    assert all(held)


def test_low_concentration_leaves_clients_few_labels() -> None:
    def labels(concentration: float) -> float:
        held = deal(EXAMPLES, 10, concentration, seed=3)
        return float(np.mean([len({example.label for example in own}) for own in held]))

    assert labels(0.05) < 3 < labels(100.0)


def test_ranks_follow_the_shares_whatever_the_data() -> None:
    clients = ranked(deal(EXAMPLES, 20, 0.1, seed=3), seed=3)
    counts = {rank: sum(client.rank == rank for client in clients) for rank in RANK_SHARES}
    assert counts == {2: 8, 4: 6, 8: 4, 16: 2}


def test_frozen_ranks_are_scored_beside_the_trained_ones() -> None:
    joined = whole(Handout(stacked(adapter(2)), stacked(adapter(1)))).factors["key"]
    # eye(5, 2) @ eye(2, 3) + eye(5, 1) @ eye(1, 3): a two in the first place.
    np.testing.assert_array_equal(joined.lora_B @ joined.lora_A, np.diag([2.0, 1, 0, 0, 0])[:, :3])


def test_tail_energy_is_the_share_beyond_the_leading_ranks() -> None:
    factors = LoraFactors(np.diag([2.0, 1.0, 1.0]), np.eye(5, 3))
    assert tail_energy(stacked(Adapter(SPEC, {"key": factors})), 2) == pytest.approx(1 / 6)


def test_score_is_read_off_between_two_rounds_and_rows_are_means() -> None:
    runs = [Curve([0, 10, 20], [0.5, 0.6, 0.8], 2, 0.1), Curve([0, 10, 20], [0.5, 0.7, 0.7], 2, 0.3)]
    assert score_at(runs[0], 15) == pytest.approx(0.7)
    # Over the last fifth, from 16 to 20, the first run's line goes from 0.72 to 0.8.
    best, last = rows_of({"b": [runs[0]], "a": runs}, 20)
    assert (best.rule, best.score, best.deviation) == ("b", 0.76, 0.0)
    assert (last.score, last.tail_energy, last.scores) == (0.73, 0.2, [0.76, 0.7])
    assert last.deviation == pytest.approx(0.0424, abs=1e-4)


def test_every_rule_that_the_contest_is_about_takes_part() -> None:
    assert {"hetlora", "rbla", "flexlora", "raflora", "lora_a2", "residual_exact"} <= set(ENTRANTS)


def test_each_persona_answers_the_turn_before(tmp_path: Path) -> None:
    turns = [("Ann", "Hi"), ("Bob", "Hello"), ("Ann", "How are you?"), ("Bob", "Well")]
    session = [{"speaker": speaker, "text": text} for speaker, text in turns]
    chat = {"speaker_a": "Ann", "speaker_b": "Bob", "session_1": session[:2], "session_2": session[2:]}
    (tmp_path / "1.json").write_text(json.dumps(chat))
    ann, bob = personas_of(tmp_path)
    assert [(example.text, example.label) for example in ann] == [("Hello", " How are you?")]
    assert [(example.text, example.label) for example in bob] == [("Hi", " Hello"), ("How are you?", " Well")]


def test_folder_without_chats_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1.json").write_text('{"speaker_a": "Ann"}')
    with pytest.raises(DataError):
        personas_of(tmp_path)
    (tmp_path / "1.json").unlink()
    with pytest.raises(DataError):
        personas_of(tmp_path)
