"""The evaluation of the rules: who has which rank, what each arm trains, and what its figures mean."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from aggregator_service.aggregation.rule import Handout
from aggregator_service.aggregation.rules import first_state, open_rule
from benchmarks.demo.scoring import Scorer
from benchmarks.quality.arms import ARMS, ZERO_PAD, Arm, clients_of, power_law
from benchmarks.quality.full_fine_tuning import full_rounds, open_full
from benchmarks.quality.report import markdown_of, rows_of, target_of
from benchmarks.quality.trial import Curve, Trial, kept_file, learned, run_arm
from benchmarks.rules.simulation import Setting, Trained, lost_of, rounds, whole
from benchmarks.tasks.answers import rouge_l
from benchmarks.tasks.clients import Client
from benchmarks.tasks.task import Task, adapter_score
from edge_sdk.examples import Example
from hetlora.adapter import Adapter, LoraFactors, initial_adapter
from hetlora.bundle import Bundle
from hetlora.errors import DataError
from hetlora.messages.device import TrainingSettings
from hetlora.messages.rules import FedSaRule, FedSbRule
from hetlora.tensors import factor_keys

LABELS = ("weather", "food", "sport")


@pytest.fixture
def task(tiny_bundle: Bundle, tiny_model_folder: Path) -> Task:
    """Three clients that know one label each."""
    clients = [
        Client(number, 2, [Example(f"{word} {label}", label) for word in ("snow", "soup", "ball", "team")])
        for number, label in enumerate(LABELS)
    ]
    held_out = [Example(f"rain {label}", label) for label in LABELS]
    score = Scorer(tiny_bundle, held_out).share_right
    return Task(tiny_bundle, tiny_model_folder, clients, adapter_score(tiny_bundle, score), score, "accuracy")


def trial(**changes: object) -> Trial:
    values = {
        "task": "intents",
        "data": Path(),
        "work": Path(),
        "clients": 3,
        "cohort": 2,
        "ranks": (1, 4),
        "rounds": 2,
        "steps": 1,
        "batch_size": 2,
        "learning_rate": 0.01,
        "full_learning_rate": 0.01,
        "central_learning_rate": 0.01,
        "score_every": 2,
        "answers": False,
    }
    return Trial(**{**values, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_runs_and_is_scored(task: Task, name: str) -> None:
    curve = learned(trial(), task, ARMS[name], seed=0)

    assert curve.rounds == [0, 2]
    assert all(0 <= score <= 1 for score in curve.scores)
    assert (curve.megabytes[-1] > 0) == (name != "local_only")
    assert curve.seconds[-1] > 0


def test_kept_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    asked = trial(work=tmp_path)
    kept_file(asked, "zero_pad", 0).write_text("{")

    with pytest.raises(DataError, match=r"intents-zero_pad-0-.*json is no finished run"):
        run_arm(asked, "zero_pad", 0)


def test_rate_of_all_data_in_one_place_is_of_that_arm_alone() -> None:
    one, other = trial(central_learning_rate=0.1), trial(central_learning_rate=0.2)

    differ = [name for name in ARMS if kept_file(one, name, 0) != kept_file(other, name, 0)]

    assert differ == ["centralised"]


@pytest.mark.parametrize(("name", "own"), [("centralised", "central"), ("full_fine_tuning", "full")])
def test_arms_of_another_kind_train_at_a_rate_of_their_own(task: Task, name: str, own: str) -> None:
    low, high = (learned(trial(**{f"{own}_learning_rate": rate}), task, ARMS[name], 0) for rate in (1e-12, 1))

    assert low.scores[0] == pytest.approx(low.scores[1])
    assert high.scores[0] != pytest.approx(high.scores[1])


def test_ranks_follow_the_power_law_and_not_the_data() -> None:
    """Below r the mass is about (r^0.1 - 2^0.1) / (16^0.1 - 2^0.1): half of it lies below rank 6."""
    ranks = power_law(1000, (2, 16), np.random.default_rng(0))

    assert (min(ranks), max(ranks)) == (2, 16)
    counts = Counter(ranks)
    assert [counts[rank] for rank in range(2, 17)] == sorted(counts.values(), reverse=True)
    assert counts[2] / counts[16] == pytest.approx(8**0.9, rel=0.05)
    assert power_law(7, (2, 16), np.random.default_rng(0)) != power_law(7, (2, 16), np.random.default_rng(1))


def test_the_highest_rank_is_held_among_few_clients_too() -> None:
    """The last of ten quantiles lies below it."""
    assert max(power_law(10, (2, 16), np.random.default_rng(0))) == 16


def test_arms_of_one_rank_and_of_one_place() -> None:
    clients = [Client(number, 9, [Example(f"{number}", "a")] * (number + 1)) for number in range(3)]

    assert {client.rank for client in clients_of(ARMS["lora_least_rank"], clients, (3, 5), 0)} == {3}
    (one,) = clients_of(ARMS["centralised"], clients, (3, 5), 0)
    assert (one.rank, len(one.examples)) == (5, 6)
    assert clients_of(Arm(), clients, (3, 5), 3) == clients_of(Arm(), clients, (3, 5), 3)


def test_full_fine_tuning_takes_the_mean_of_all_weights_by_examples(task: Task) -> None:
    """Clients with one example and three: a quarter of the first's weights and three of the other's.

    Each has all its examples in one batch, so that its order does not count.
    """
    weather, food = task.clients[:2]
    held = [replace(weather, examples=weather.examples[:1]), replace(food, examples=food.examples[:3])]
    before = dict(open_full(task).module.named_parameters())
    size = sum(4 * own.numel() for own in before.values())

    def trained(*clients: Client) -> dict[str, torch.Tensor]:
        training = TrainingSettings(steps=1, batch_size=3, learning_rate=0.01, max_tokens=32)
        model = open_full(task)
        setting = Setting(task.bundle, clients, training, 1, len(clients), seed=0)
        assert [*islice(full_rounds(setting, model), 1)] == [2 * size * len(clients)]
        return {name: own.detach() for name, own in model.module.named_parameters()}

    one, other, both = trained(held[0]), trained(held[1]), trained(*held)

    for name, own in both.items():
        # AdamW's first step is 0.01 by the gradient's sign, nearly: small gradients round to either.
        np.testing.assert_allclose(own, 0.25 * one[name] + 0.75 * other[name], atol=2e-3)
    moved = torch.cat([(one[name] - other[name]).abs().flatten() for name in both])
    assert float((moved > 0.01).double().mean()) > 0.1, "or the mean would be any of the two"


def test_target_is_nine_tenths_of_what_the_highest_rank_gains() -> None:
    def curve(*scores: float) -> Curve:
        return Curve([0, 5, 10], scores, [0.0, 10.0, 20.0], [0.0, 1.0, 2.0])

    curves = {
        "lora_most_rank": [curve(0.5, 0.55, 0.6), curve(0.5, 0.6, 0.6)],
        "zero_pad": [curve(0.5, 0.59, 0.58), curve(0.5, 0.5, 0.7)],
        "local_only": [curve(0.5, 0.6, 0.6), curve(0.5, 0.5, 0.5)],
    }

    assert target_of(curves) == pytest.approx(0.59)
    zero_pad, most, local = rows_of(curves)
    assert (zero_pad.arm, zero_pad.score, zero_pad.deviation) == ("zero_pad", 0.64, 0.0849)
    assert most.rounds_to_target == 7.5
    assert local.rounds_to_target is None  # one seed did not
    # Half of what the highest rank for all moves is 10 MB, after five rounds.
    assert (zero_pad.score_in_megabytes, zero_pad.score_in_seconds) == (0.545, 0.545)
    assert "| zero_pad | 0.6400 | 0.0849 | 20 | 8 | 15 | 2 | 0.5450 | 0.5450 |  |  |" in markdown_of(
        [zero_pad], "accuracy"
    )


def test_there_is_no_target_where_the_highest_rank_gains_nothing() -> None:
    overfitted = {"lora_most_rank": [Curve([0, 5], [0.5, 0.4], [0.0, 1.0], [0.0, 1.0])]}

    assert target_of(overfitted) is None
    assert rows_of(overfitted)[0].rounds_to_target is None


def test_score_at_the_budget_lies_between_the_scores_before_and_after() -> None:
    """Half of 20 MB is 10, three quarters of the way from 4 MB with 0.5 to 12 MB with 0.9."""
    curves = {
        "lora_most_rank": [Curve([0, 5, 10], [0.5, 0.6, 0.7], [0.0, 10.0, 20.0], [0.0, 1.0, 2.0])],
        "zero_pad": [Curve([0, 5, 10], [0.1, 0.5, 0.9], [0.0, 4.0, 12.0], [0.0, 0.1, 0.2])],
    }

    zero_pad, _ = rows_of(curves)

    assert (zero_pad.score_in_megabytes, zero_pad.score_in_seconds) == (0.8, 0.9)


def test_robustness_is_the_share_of_the_gain_that_losses_leave() -> None:
    runs = {"zero_pad": [Curve([0, 5], [0.5, 0.7], [0.0, 9.0], [0.0, 1.0])]}
    lossy = {"zero_pad": [Curve([0, 5], [0.5, 0.65], [0.0, 8.0], [0.0, 1.0])]}

    (row,) = rows_of(runs, lossy)

    assert (row.score_with_losses, row.gain_kept) == (0.65, 0.75)
    assert (row.score_in_megabytes, row.rounds_to_target) == (None, None)  # no highest rank for all beside it


def test_updates_that_are_lost_go_down_and_never_up(task: Task) -> None:
    """Of a cohort of three all but one are lost, whichever that is."""
    training = TrainingSettings(steps=1, batch_size=2, learning_rate=0.01, max_tokens=32)
    heard = Setting(task.bundle, task.clients, training, 2, 3, seed=0)
    almost_none = replace(heard, lost_share=0.999999)

    assert lost_of(heard, 0) == frozenset()
    assert len(lost_of(almost_none, 0)) == 2
    (all_three,), (one,) = (islice(rounds(own, ZERO_PAD), 1) for own in (heard, almost_none))
    assert one.down_bytes == all_three.down_bytes
    assert 3 * one.up_bytes == all_three.up_bytes
    (moved,) = islice(full_rounds(almost_none, open_full(task)), 1)
    (moved_all,) = islice(full_rounds(heard, open_full(task)), 1)
    assert 6 * moved == 4 * moved_all


def test_rouge_l_is_the_share_of_words_in_the_same_order() -> None:
    """Of "the cat sat" and "the old cat": the and cat stand in both in order, 2 x 2 / (3 + 3)."""
    assert rouge_l("The cat sat", "the old cat") == pytest.approx(2 / 3)
    assert rouge_l("", "a") == 0
    assert rouge_l("a b", "a b") == 1


def test_client_begins_with_the_factors_that_it_kept_to_itself(task: Task) -> None:
    """FedSA-LoRA: each round adds one to lora_B, and no client's reaches another."""
    begun: dict[int, list[float]] = {}
    first = task.bundle.manifest.adapter.modules[0].name

    def train(setting: Setting, client: Client, own: Adapter, handout: Handout, round_index: int) -> Trained:
        begun.setdefault(client.number, []).append(float(own.factors[first].lora_B[0, 0]))
        moved = {
            name: LoraFactors(both.lora_A, both.lora_B + np.float32(client.number + 1))
            for name, both in own.factors.items()
        }
        return Trained(Adapter(own.spec, moved))

    setting = Setting(task.bundle, task.clients, TrainingSettings(), 2, 3, seed=0)
    *_, last = islice(rounds(setting, FedSaRule(), train), 3)

    assert begun == {0: [0, 1, 2], 1: [0, 2, 4], 2: [0, 3, 6]}
    assert {number: float(own[factor_keys(first)[1]][0, 0]) for number, own in last.private.items()} == {
        0: 3,
        1: 6,
        2: 9,
    }


def test_cores_are_between_the_factors_of_what_is_scored(task: Task) -> None:
    """Fed-SB begins with a core of zeros: what it adds to the model is nothing, until a core is trained."""
    setting = Setting(
        task.bundle, task.clients, TrainingSettings(steps=2, batch_size=2, learning_rate=0.1), 2, 3, seed=0
    )
    initial = initial_adapter(task.bundle.manifest.adapter, 2, np.random.default_rng(0))
    first = open_rule(FedSbRule(), first_state(FedSbRule(), initial))
    (made,) = islice(rounds(setting, FedSbRule()), 1)

    assert not any(own.lora_B.any() for _, own in whole(first.distribute(2)))
    assert any(own.lora_B.any() for _, own in whole(open_rule(FedSbRule(), made.state).distribute(2)))
