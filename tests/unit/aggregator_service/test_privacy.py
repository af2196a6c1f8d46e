"""Runs with differential privacy: what rounds spend, and that no kill spends too little."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, suppress
from typing import Any

import numpy as np
import pytest
from fake_clock import FakeClock
from fake_device import FakeDevice
from mortal_service import Death, Steps, count_steps, live_and_die, mortal
from service_bundle import make_adapter
from service_operator import Operator
from service_server import problem
from service_verbs import add_device, assignment_of, deliver, report, started_run, take_offer, upload
from sqlalchemy import select

from aggregator_service.privacy.accounting import precision_of, spent_at
from aggregator_service.privacy.budgets import set_budget
from aggregator_service.rounds.runs import change_run, create_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.privacy_tables import PrivacySpendRow
from aggregator_service.storage.tables import AdapterVersionRow, RoundRow, RunRow
from aggregator_service.worker.worker import tick
from hetlora.adapter import Adapter
from hetlora.errors import PrivacyBudgetSpent, StateConflict
from hetlora.messages.management import RunCreate, RunSettings
from hetlora.messages.privacy import PrivacyBudget
from hetlora.states import AssignmentState, RoundState, RunState
from hetlora.tensors import adapter_from_bytes

NOISE = {"clip_norm": 1.0, "noise_multiplier": 2.0}
CopyOf = Callable[[Settings], AbstractContextManager[Settings]]


def budget_of(epsilon: float) -> PrivacyBudget:
    return PrivacyBudget(epsilon=epsilon, delta=1e-5)


def spends(service: Service) -> list[PrivacySpendRow]:
    with service.database.read() as session:
        return list(session.scalars(select(PrivacySpendRow).order_by(PrivacySpendRow.round_index)))


def run_of(service: Service, run_id: str) -> RunRow:
    with service.database.read() as session:
        return session.get_one(RunRow, run_id)


def newest(service: Service, run_id: str) -> Adapter:
    version = run_of(service, run_id).adapter_version
    with service.database.read() as session:
        row = session.get_one(AdapterVersionRow, version)
    return adapter_from_bytes(service.objects.read(row.sha256), make_adapter(2).spec)


def test_rounds_spend_what_the_gaussian_mechanism_does() -> None:
    # Balle and Wang's theorem 8 by hand at sigma = 1: delta(eps) = Phi(1/2 - eps) - e^eps Phi(-1/2 - eps).
    def delta_at(epsilon: float) -> float:
        def below(x: float) -> float:
            return math.erfc(-x / math.sqrt(2)) / 2

        return below(0.5 - epsilon) - math.exp(epsilon) * below(-0.5 - epsilon)

    spent = spent_at(precision_of([1.0]), 1e-5)
    assert delta_at(spent.epsilon) == pytest.approx(1e-5, rel=1e-6)
    # Four rounds of sigma 2 tell as much as one of sigma 1; none tell nothing.
    assert spent_at(precision_of([2.0] * 4), 1e-5).epsilon == pytest.approx(spent.epsilon, rel=1e-9)
    assert spent_at(precision_of([]), 1e-5).epsilon == 0


def test_accounting_is_that_of_privacy_loss_distributions() -> None:
    import dp_accounting
    from dp_accounting import pld

    accountant = pld.PLDAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(2.0), 10)
    accountant.compose(dp_accounting.GaussianDpEvent(5.0), 30)
    spent = spent_at(precision_of([2.0] * 10 + [5.0] * 30), 1e-6)
    assert spent.epsilon == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-3)


def test_round_adds_noise_and_its_version_says_what_was_spent(operator: Operator, device: FakeDevice) -> None:
    status = operator.call(
        "POST", "/populations/keyboard:set-privacy-budget", json={"epsilon": 50.0, "delta": 1e-5}
    )
    assert status["spent"] == {"epsilon": 0.0, "delta": 1e-5}
    run_id = operator.run(operator.publish(), privacy=NOISE)
    device.deliver(make_adapter(2))
    run = operator.committed(run_id)
    (version, initial) = operator.items(f"/runs/{run_id}/adapters")
    assert initial["privacy"] is None
    details = operator.call("GET", f"/adapters/{version['version']}")
    assert details["lineage"]["privacy"] == version["privacy"]
    assert details["lineage"]["ranks"] == []  # they follow from data, and have no noise
    assert version["privacy"]["epsilon"] == pytest.approx(spent_at(0.25, 1e-5).epsilon)
    assert set(version["figures"]) == {"clipped_share", "noise_in_step"}
    content = operator.send("GET", f"/adapters/{run['adapter_version']}/content").content
    after = adapter_from_bytes(content, make_adapter(2).spec)
    moved = np.concatenate([own.lora_A.ravel() for own in after.factors.values()])
    assert len(np.unique(moved)) == moved.size  # each number has noise of its own
    ledger = operator.call("GET", "/populations/keyboard/privacy")
    assert ledger["rounds"] == 1
    assert ledger["spent"] == version["privacy"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"rule": {"name": "flexlora"}}, "the rule of a run with privacy"),
        ({"rule": {"name": "hetlora", "weights": "module"}}, "the weights of a run with privacy"),
        ({"defence": {"method": "median"}}, "a defence in a run with privacy"),
        ({"goal_count": 9, "screens": {}}, "screens in a run with privacy"),
        ({"mode": "buffered", "rule": {"name": "fslora"}}, "the rule of a run with privacy"),
    ],
)
@pytest.mark.usefixtures("enrolment_token")
def test_what_has_no_proof_is_refused(operator: Operator, asked: dict[str, Any], told: str) -> None:
    operator.call("POST", "/populations/keyboard:set-privacy-budget", json={"epsilon": 5.0, "delta": 1e-5})
    body = {
        "population": "keyboard",
        "bundle": operator.publish(),
        "settings": {"goal_count": 3, "max_rank": 2, "privacy": NOISE, **asked},
    }
    answer = operator.send("POST", "/runs", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(told)


# With these the proof of docs/privacy.md holds: none lets one device's update decide about another's.
PROVEN = {
    *("stop", "schedule"),
    *("rounds", "goal_count", "over_selection", "minimum_share", "report_window_seconds", "lease_seconds"),
    *("max_staleness", "server_optimizer", "privacy", "evaluation", "conditions", "min_rank", "max_rank"),
    *("seed", "training", "variants"),
}
# Settings of which some values break it, and are refused.
SOME_REFUSED = {"mode", "rule", "defence", "screens", "secure_aggregation"}


def test_every_setting_of_a_run_keeps_the_proof_or_is_refused() -> None:
    # A new setting has to be looked at: one that picks updates by what others are (a screen, a defence) is to
    # be refused in `check_privacy` before it is named here.
    assert set(RunSettings.model_fields) == PROVEN | SOME_REFUSED


@pytest.mark.usefixtures("enrolment_token")
def test_noise_and_budget_need_each_other(operator: Operator) -> None:
    digest = operator.publish()

    def refusal(**settings: Any) -> str:
        asked = {"goal_count": 1, "max_rank": 2} | settings
        body = {"population": "keyboard", "bundle": digest, "settings": asked}
        answer = operator.send("POST", "/runs", json=body)
        assert answer.status_code == 422
        return str(answer.json()["detail"])

    assert refusal(privacy=NOISE) == "the population has no privacy budget"
    operator.call("POST", "/populations/keyboard:set-privacy-budget", json={"epsilon": 5.0, "delta": 1e-5})
    assert refusal() == "a population with a privacy budget has no runs without noise"


def test_budget_is_not_promised_while_a_run_without_noise_goes_on(service: Service, bundle: str) -> None:
    run_id = started_run(service, bundle)
    with pytest.raises(StateConflict, match="no runs without noise"):
        set_budget(service, "keyboard", budget_of(1))
    change_run(service, run_id, "stop")
    set_budget(service, "keyboard", budget_of(1))


def test_run_over_budget_is_paused_and_goes_on_with_a_larger_one(service: Service, bundle: str) -> None:
    # One round of sigma 2 spends 1.99 at 1e-5, two spend 2.94.
    set_budget(service, "keyboard", budget_of(2.5))
    run_id = started_run(service, bundle, rounds=2, privacy=NOISE)
    add_device(service)
    deliver(service, "device-1", make_adapter(2))
    tick(service)
    run = run_of(service, run_id)
    assert (run.state, run.rounds_committed) == (RunState.PAUSED, 1)
    assert "round 1 would pass the privacy budget of population keyboard" in run.reason
    with pytest.raises(PrivacyBudgetSpent, match="would pass the privacy budget"):
        change_run(service, run_id, "resume")
    set_budget(service, "keyboard", budget_of(4))
    change_run(service, run_id, "resume")
    deliver(service, "device-1", make_adapter(2, 2.0))
    tick(service)
    assert run_of(service, run_id).state is RunState.COMPLETED
    assert [row.noise_seed for row in spends(service)] == [None, None]


def test_run_that_no_budget_is_left_for_does_not_start(service: Service, bundle: str) -> None:
    set_budget(service, "keyboard", budget_of(0.5))
    with pytest.raises(PrivacyBudgetSpent, match="round 0 would pass"):
        started_run(service, bundle, privacy=NOISE)
    assert spends(service) == []


def test_runs_of_a_population_spend_of_one_budget(service: Service, bundle: str) -> None:
    set_budget(service, "keyboard", budget_of(2.5))
    started_run(service, bundle, privacy=NOISE)
    with pytest.raises(PrivacyBudgetSpent):
        started_run(service, bundle, privacy=NOISE)


def test_attempts_at_a_round_spend_once_and_have_noise_of_their_own(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    set_budget(service, "keyboard", budget_of(2.5))
    run_id = started_run(service, bundle, privacy=NOISE, report_window_seconds=60.0)
    add_device(service)
    take_offer(service, "device-1")
    (first,) = spends(service)
    clock.advance(61)
    tick(service)
    with service.database.read() as session:
        attempts = session.scalars(select(RoundRow.state).where(RoundRow.run_id == run_id)).all()
    assert sorted(attempts) == [RoundState.ABANDONED, RoundState.SELECTING]
    (again,) = spends(service)
    assert again.epsilon == first.epsilon
    assert again.noise_seed != first.noise_seed


UPDATE = make_adapter(2)


def begin(service: Service) -> None:
    take_offer(service, "device-1", UPDATE.rank)


def upload_update(service: Service) -> None:
    upload(service, "device-1", assignment_of(service, "device-1"), UPDATE)


def submit(service: Service) -> None:
    receipt = report(service, "device-1", assignment_of(service, "device-1"), UPDATE)
    assert receipt.state is AssignmentState.ACCEPTED


@pytest.mark.slow
def test_ledger_survives_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        set_budget(service, "keyboard", budget_of(2.5))
        run_id = started_run(service, bundle, rounds=2, privacy=NOISE)
        add_device(service)
        (opened,) = spends(service)
    actions: list[Callable[[Service], None]] = [begin, upload_update, submit, tick]
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, actions)
    assert steps > 20
    results = set()
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, actions, last)
            with closing(open_service(alone, clock)) as service:
                run = run_of(service, run_id)
                assert run.rounds_committed == 1
                # Its one round is paid for, whenever the process died; the next was not affordable.
                (row,) = spends(service)
                assert row.epsilon == opened.epsilon
                assert (run.state, row.noise_seed) == (RunState.PAUSED, None)
                results.add(newest(service, run_id).factors["query"].lora_A.tobytes())
    assert len(results) == 1  # the same noise after each death


@pytest.mark.slow
def test_no_round_is_open_or_committed_that_the_ledger_does_not_have(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        set_budget(service, "keyboard", budget_of(10))
        add_device(service)
        asked = RunSettings.model_validate(
            {"rounds": 2, "goal_count": 1, "over_selection": 1.0, "max_rank": 2, "privacy": NOISE}
        )
        draft = create_run(service, RunCreate(population="keyboard", bundle=bundle, settings=asked))

    def start(service: Service) -> None:
        if run_of(service, draft).state is RunState.DRAFT:
            change_run(service, draft, "start")

    actions: list[Callable[[Service], None]] = [start, begin, upload_update, submit, tick]
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, actions)
    for last in range(steps):
        with copy_of(settings) as alone:
            left = list(actions)
            with closing(open_service(alone, clock)) as service:
                dying = mortal(service, Steps(last))
                with suppress(Death):
                    while left:
                        left[0](dying)
                        left.pop(0)
                with service.database.read() as session:
                    rounds = sorted(session.scalars(select(RoundRow.round_index)))
                assert rounds == [row.round_index for row in spends(service)]
                for action in left:
                    action(service)
                # One round is committed and the next is open: two are paid for, whenever the process died.
                assert run_of(service, draft).rounds_committed == 1
                assert [row.round_index for row in spends(service)] == [0, 1]


@pytest.mark.parametrize("epsilon", [True, "8"])
def test_budget_that_is_no_number_is_refused(operator: Operator, epsilon: object) -> None:
    """True would be 1.0: a budget that nobody asked for."""
    answer = operator.send(
        "POST", "/populations/keyboard:set-privacy-budget", json={"epsilon": epsilon, "delta": 1e-7}
    )

    assert problem(answer) == (422, "malformed_message")
