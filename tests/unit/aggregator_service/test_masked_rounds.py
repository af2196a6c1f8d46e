"""Rounds with masks: the sum is the plain one, whoever drops out, and no step can be taken out of turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import timedelta

import numpy as np
import pytest
from fake_clock import FakeClock
from masked_rounds import ABLE, MaskedDevice, cohort, masked_run, rounds_of
from mortal_service import count_steps, live_and_die
from service_bundle import SPEC
from service_verbs import CHECK_IN, add_device
from sqlalchemy import func, select

from aggregator_service.aggregation.optimizers import with_optimizer
from aggregator_service.aggregation.rule import GlobalState, Update, UpdateRef
from aggregator_service.aggregation.rules import open_rule
from aggregator_service.aggregation.stacks import stacked, unstacked
from aggregator_service.aggregation.tree import aggregate
from aggregator_service.assignments.assignments import fail
from aggregator_service.assignments.offers import check_in
from aggregator_service.rounds.runs import change_run
from aggregator_service.service import Service, open_service
from aggregator_service.settings import Settings
from aggregator_service.storage.masking_tables import MaskingMemberRow, MaskingRoundRow
from aggregator_service.storage.tables import AdapterVersionRow, AssignmentRow, RunRow
from aggregator_service.worker.commit import commit_round
from aggregator_service.worker.worker import tick
from hetlora.adapter import Adapter
from hetlora.errors import MalformedMessage, RankOutOfRange, SettingsError, SpecMismatch, StateConflict
from hetlora.masking.wire import masked_to_bytes
from hetlora.messages.device import Failure
from hetlora.messages.masking import (
    MOST_MASKED,
    MaskingStep,
    MaskReveal,
    MaskShares,
    RevealedShare,
    SealedShares,
)
from hetlora.states import AssignmentState
from hetlora.tensors import adapter_from_bytes

CopyOf = Callable[[Settings], AbstractContextManager[Settings]]
WINDOW = 3600.0


def versions(service: Service, run_id: str) -> list[Adapter]:
    """The adapters of a run, the initial one first."""
    with service.database.read() as session:
        query = select(AdapterVersionRow.sha256).where(AdapterVersionRow.run_id == run_id)
        found = session.scalars(query.order_by(AdapterVersionRow.round_index)).all()
    return [adapter_from_bytes(service.objects.read(sha256), SPEC) for sha256 in found]


def plain(service: Service, run_id: str, devices: list[MaskedDevice]) -> Adapter:
    """What the run's rule, and its optimizer, make of updates that they see."""
    with service.database.read() as session:
        settings = session.get_one(RunRow, run_id).settings
    state = GlobalState(stacked(versions(service, run_id)[0]), settings.max_rank)
    rule = with_optimizer(open_rule(settings.rule, state), settings.server_optimizer)
    updates = {
        UpdateRef(f"{own.number:064}", own.example_count): Update(stacked(own.update), own.example_count)
        for own in devices
    }
    return unstacked(aggregate(rule, [*updates], updates.__getitem__).state.adapter)


def assert_same(found: Adapter, wanted: Adapter) -> None:
    for module, own in found:
        for factor in ("lora_A", "lora_B"):
            want = getattr(wanted.factors[module.name], factor)
            np.testing.assert_allclose(getattr(own, factor), want, rtol=0, atol=1e-6 * np.abs(want).max())


def secrets_kept(service: Service) -> int:
    with service.database.read() as session:
        counts = (select(func.count()).select_from(own) for own in (MaskingRoundRow, MaskingMemberRow))
        return sum(session.scalar(count) or 0 for count in counts)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"rule": {"name": "zero_pad"}},
        {"rule": {"name": "zero_pad", "weights": "uniform"}},
        {"server_optimizer": {"name": "momentum", "momentum": 0.5, "learning_rate": 0.7}},
    ],
)
def test_round_comes_to_what_the_rule_does_on_those_that_stayed(
    service: Service, bundle: str, chosen: dict[str, object]
) -> None:
    run_id = masked_run(service, bundle, **chosen)
    devices = cohort(service)
    for own in devices:
        own.share()
    gone, stayed = devices[1], [devices[0], *devices[2:]]
    fail(service, gone.device_id, gone.assignment_id, Failure(code="stopped", message=""))
    for own in stayed:
        assert own.send().state is AssignmentState.ACCEPTED
    assert secrets_kept(service) == 6
    for own in stayed:
        assert own.reveal().todo == "over"
    tick(service)

    assert rounds_of(service, run_id) == [(0, "committed", "4 updates")]
    assert_same(versions(service, run_id)[1], plain(service, run_id, stayed))
    assert secrets_kept(service) == 0
    with service.database.read() as session:
        assert set(session.scalars(select(AssignmentRow.aggregation_weight))) == {None}


def test_operator_sees_what_a_round_with_masks_waits_for(service: Service, bundle: str) -> None:
    run_id = masked_run(service, bundle)
    devices = cohort(service)
    seen = [rounds_of(service, run_id)[0][2]]
    for step in ("share", "send"):
        for own in devices:
            getattr(own, step)()
        devices[0].poll()
        seen.append(rounds_of(service, run_id)[0][2])

    assert seen == [
        "a cohort of 5 has told its keys, and shares its secrets",
        "5 of a cohort of 5 shared; then uploads",
        "5 of a cohort of 5 sent their masked updates; then reveals",
    ]


def test_device_that_never_shares_is_left_out_of_all_masks(service: Service, bundle: str) -> None:
    run_id = masked_run(service, bundle)
    devices = cohort(service)
    fail(service, devices[4].device_id, devices[4].assignment_id, Failure(code="stopped", message=""))
    for own in devices[:4]:
        own.share()
    for own in devices[:4]:
        own.send()
    for own in devices[:4]:
        own.reveal()
    tick(service)

    assert_same(versions(service, run_id)[1], plain(service, run_id, devices[:4]))


def test_adapter_stays_where_no_update_has_any_weight(service: Service, bundle: str) -> None:
    run_id = masked_run(service, bundle, goal_count=3)
    devices = cohort(service, 3)
    for own in devices:
        own.update = versions(service, run_id)[0]  # lora_B is zero, and with it the norm
        own.share()
    for own in devices:
        own.send()
    for own in devices:
        own.reveal()
    tick(service)

    assert_same(*versions(service, run_id))


def test_client_that_does_not_mask_is_offered_no_such_round(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    device_id = add_device(service)

    answer = check_in(service, device_id, CHECK_IN)

    assert (answer.offer, answer.reason) == (None, "the run has masks, of which this client does not know")
    assert check_in(service, device_id, ABLE).offer is not None


def test_cohort_that_has_told_its_keys_takes_nobody_else(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    late = MaskedDevice(service, 6)  # has an offer, and trains
    devices = cohort(service)

    assert {own.poll().position for own in devices} == {0, 1, 2, 3, 4}
    assert late.tell_keys().reason == "too late for its cohort's masks"
    assert check_in(service, add_device(service, "device-new"), ABLE).reason == "the cohort has told its keys"


def test_shares_go_to_whom_they_are_for_and_each_waits_for_the_others(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    assert [own.share().todo for own in devices] == ["wait"] * 4 + ["upload"]

    tasks = [own.poll() for own in devices]

    assert {own.todo for own in tasks} == {"upload"}
    assert [share.device for share in tasks[2].sealed] == [0, 1, 2, 3, 4]
    assert len({share.sealed for own in tasks for share in own.sealed}) == 25


def test_each_step_renews_the_lease(service: Service, bundle: str, clock: FakeClock) -> None:
    masked_run(service, bundle, lease_seconds=100)
    first = MaskedDevice(service, 0)
    for _ in range(5):
        clock.advance(90)
        assert first.tell_keys().todo == "wait"

    clock.advance(101)
    assert first.poll().reason == "the lease ran out"


def test_first_keys_count(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    first, other = MaskedDevice(service, 0), MaskedDevice(service, 1)
    first.tell_keys()

    assert first.tell_keys().todo == "wait"
    with pytest.raises(StateConflict, match="other keys"):
        first.step(other.secrets.public)


def test_keys_that_stand_twice_come_to_no_cohort(service: Service, bundle: str) -> None:
    """Members refuse a cohort that has one: a single device could end every round for all."""
    masked_run(service, bundle)
    first, other = MaskedDevice(service, 0), MaskedDevice(service, 1)
    first.tell_keys()
    told, own = first.secrets.public, other.secrets.public

    for keys in (
        told,
        own.model_copy(update={"mask_key": told.share_key}),
        own.model_copy(update={"share_key": own.mask_key}),
    ):
        with pytest.raises(MalformedMessage, match="key"):
            other.step(keys)
    assert other.tell_keys().todo == "wait"
    assert first.tell_keys().todo == "wait"


def test_first_shares_count(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    task = devices[0].poll()
    first, second = (devices[0].shares(task) for _ in range(2))
    for own in (first, second):
        devices[0].step(own)
    for device in devices[1:]:
        device.share()

    came = devices[3].poll()
    (of_first,) = (share.sealed for share in came.sealed if share.device == task.position)
    assert of_first == first.sealed[came.position or 0].sealed


@pytest.mark.parametrize("kept", [[0, 1, 2, 3], [0, 1, 2, 3, 3], [0, 1, 2, 3, 4, 4]])
def test_shares_that_are_not_one_for_each_member_are_refused(
    service: Service, bundle: str, kept: list[int]
) -> None:
    masked_run(service, bundle)
    device = cohort(service)[0]
    shares = device.shares(device.poll())

    with pytest.raises(MalformedMessage, match="shares of a cohort"):
        device.step(shares.model_copy(update={"sealed": tuple(shares.sealed[own] for own in kept)}))


def test_largest_steps_are_no_larger_than_a_body_may_be() -> None:
    """The limit is one for all messages, and told in the settings."""
    everybody = range(MOST_MASKED)
    sealed = tuple(SealedShares(device=own, sealed="A" * 126 + "==") for own in everybody)
    seeds = tuple(RevealedShare(device=own, share="A" * 44) for own in everybody)

    for step in (MaskShares(sealed=sealed), MaskReveal(seeds=seeds, mask_keys=())):
        assert (
            len(MaskingStep(step=step).model_dump_json()) <= Settings.model_fields["max_json_bytes"].default
        )


def test_steps_out_of_turn_are_refused(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    early = MaskedDevice(service, 0)
    nothing = MaskReveal(seeds=(), mask_keys=())
    with pytest.raises(StateConflict, match="the cohort is not fixed"):
        early.step(nothing)
    with pytest.raises(StateConflict, match="masked updates are not asked"):
        early.upload(b"")
    early.tell_keys()
    devices = [early, *(MaskedDevice(service, number) for number in range(1, 5))]
    for own in devices:
        own.tell_keys()

    with pytest.raises(StateConflict, match="another stage"):
        early.step(nothing)
    with pytest.raises(StateConflict, match="masked updates are not asked"):
        early.upload(b"")


def test_masked_update_of_another_width_is_refused(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    for own in devices:
        own.share()

    with pytest.raises(SpecMismatch):
        devices[0].upload(masked_to_bytes(np.zeros(20, np.uint64)))


def test_rank_that_the_device_tells_is_within_what_it_took(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    for own in devices:
        own.share()
    data = devices[1].masked_update(devices[1].poll())
    devices[1].upload(data)

    with pytest.raises(RankOutOfRange):
        devices[1].submit(data, rank=3)
    assert devices[1].submit(data, rank=1).state is AssignmentState.ACCEPTED  # pruned itself


def test_reveal_of_the_wrong_devices_is_refused(service: Service, bundle: str) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    for own in devices:
        own.share()
    fail(service, devices[4].device_id, devices[4].assignment_id, Failure(code="stopped", message=""))
    for own in devices[:4]:
        own.send()
    told = devices[0].reveals(devices[0].poll())

    with pytest.raises(MalformedMessage, match="shares of seeds"):
        devices[0].step(told.model_copy(update={"seeds": (*told.seeds, *told.mask_keys)}))
    assert devices[0].step(told).todo == "over"


def test_update_of_a_device_that_gave_up_is_refused_while_its_mask_key_is_revealed(
    service: Service, bundle: str
) -> None:
    masked_run(service, bundle)
    devices = cohort(service)
    for own in devices:
        own.share()
    data = devices[4].masked_update(devices[4].poll())
    fail(service, devices[4].device_id, devices[4].assignment_id, Failure(code="stopped", message=""))
    for own in devices[:4]:
        own.send()

    with pytest.raises(StateConflict, match="the assignment's state does not allow this"):
        devices[4].upload(data)


def finish(service: Service, devices: list[MaskedDevice]) -> None:
    """Bring a new attempt at a round to its end."""
    for own in devices:
        own.begin()
        own.secrets = type(own.secrets).generate()
    for step in ("tell_keys", "share", "send", "reveal"):
        for own in devices:
            getattr(own, step)()
    tick(service)


@pytest.mark.parametrize(
    ("done", "reason"),
    [
        (0, "report window closed with keys of 0 of 5 devices, 3 needed"),
        (1, "3 of a cohort of 5 shared, 4 needed"),
        (2, "3 of a cohort of 5 sent their masked updates, 4 needed"),
        (3, "report window closed with 3 of 4 reveals"),
    ],
)
def test_round_that_too_few_finish_is_tried_again_and_then_commits(
    service: Service, bundle: str, clock: FakeClock, done: int, reason: str
) -> None:
    run_id = masked_run(service, bundle, report_window_seconds=WINDOW, lease_seconds=10 * WINDOW)
    devices = [MaskedDevice(service, number) for number in range(5)]
    for step in ("tell_keys", "share", "send", "reveal")[:done]:
        for own in devices:
            getattr(own, step)()
    if done:
        for own in devices[:3]:
            getattr(own, ("share", "send", "reveal")[done - 1])()
    clock.advance(WINDOW + 1)
    tick(service)

    assert rounds_of(service, run_id)[0] == (0, "abandoned", reason)
    assert secrets_kept(service) == 0
    finish(service, devices)
    assert [state for _, state, _ in rounds_of(service, run_id)] == ["abandoned", "committed"]
    assert_same(versions(service, run_id)[1], plain(service, run_id, devices))


def test_window_that_closes_over_enough_keys_makes_a_smaller_cohort(
    service: Service, bundle: str, clock: FakeClock
) -> None:
    run_id = masked_run(service, bundle, report_window_seconds=WINDOW, lease_seconds=WINDOW)
    devices = cohort(service, 4)
    for _ in range(3):
        clock.advance(WINDOW / 3 + 1)
        for own in devices:
            own.poll()

    for step in ("share", "send", "reveal"):
        for own in devices:
            getattr(own, step)()
    tick(service)

    assert rounds_of(service, run_id) == [(0, "committed", "4 updates")]


def test_reveals_that_do_not_fit_are_tried_again(service: Service, bundle: str) -> None:
    run_id = masked_run(service, bundle, goal_count=3)
    devices = cohort(service, 3)
    for step in ("share", "send"):
        for own in devices:
            getattr(own, step)()
    lie = devices[0].reveals(devices[0].poll())
    seeds = (lie.seeds[0].model_copy(update={"share": lie.seeds[1].share}), *lie.seeds[1:])
    devices[0].step(lie.model_copy(update={"seeds": seeds}))
    for own in devices[1:]:
        own.reveal()
    tick(service)

    assert [state for _, state, _ in rounds_of(service, run_id)] == ["abandoned", "selecting"]
    assert len(versions(service, run_id)) == 1


def test_masked_update_that_is_lost_ends_the_attempt(service: Service, bundle: str, clock: FakeClock) -> None:
    run_id = masked_run(service, bundle, goal_count=3)
    devices = cohort(service, 3)
    for step in ("share", "send", "reveal"):
        for own in devices:
            getattr(own, step)()
    with service.database.read() as session:
        lost = session.scalars(select(AssignmentRow.update_sha256)).first()
    service.updates(f"{run_id}-000000-0000").remove(str(lost))
    for _ in range(3):
        tick(service)
        clock.advance(timedelta(minutes=1).total_seconds())

    assert rounds_of(service, run_id)[0] == (0, "abandoned", "a masked update cannot be read")


def test_run_that_is_stopped_before_its_masks_come_off_ends_without_a_fault(
    service: Service, bundle: str
) -> None:
    run_id = masked_run(service, bundle, goal_count=3)
    devices = cohort(service, 3)
    for step in ("share", "send", "reveal"):
        for own in devices:
            getattr(own, step)()
    round_id = f"{run_id}-000000-0000"  # a worker has taken it up
    change_run(service, run_id, "stop")

    commit_round(service, round_id)

    assert rounds_of(service, run_id) == [(0, "abandoned", "run stopped")]
    assert secrets_kept(service) == 0
    assert len(versions(service, run_id)) == 1


@pytest.mark.parametrize(
    ("chosen", "what"),
    [
        ({"rule": {"name": "flexlora"}}, "the rule"),
        ({"rule": {"name": "hetlora", "weights": "module"}}, "the rule"),
        ({"defence": {"method": "median"}}, "a defence"),
        ({"defence": {"clip": True}}, "a defence"),
        ({"screens": {"minimum_cohort": 5}}, "screens"),
        ({"training": {"upload_precision": "int8"}}, "upload_precision"),
        ({"goal_count": 2}, "goal_count"),
        ({"goal_count": 257}, "goal_count"),
    ],
)
def test_settings_that_masks_do_not_go_with_are_refused(
    service: Service, bundle: str, chosen: dict[str, object], what: str
) -> None:
    with pytest.raises(SettingsError, match=f"{what}.*secure aggregation"):
        masked_run(service, bundle, **chosen)


def test_buffered_run_has_no_masks(service: Service, bundle: str) -> None:
    with pytest.raises(SettingsError, match="secure aggregation"):
        masked_run(service, bundle, mode="buffered", rule={"name": "residual_exact"})


@pytest.mark.slow
def test_masks_come_off_after_a_death_at_any_step(
    settings: Settings, bundle: str, clock: FakeClock, copy_of: CopyOf
) -> None:
    with closing(open_service(settings, clock)) as service:
        run_id = masked_run(service, bundle, goal_count=3)
        devices = cohort(service, 3)
        for step in ("share", "send", "reveal"):
            for own in devices:
                getattr(own, step)()
        wanted = plain(service, run_id, devices)
    with copy_of(settings) as whole:
        steps = count_steps(whole, clock, [tick])
    for last in range(steps):
        with copy_of(settings) as alone:
            live_and_die(alone, clock, [tick], last)
            with closing(open_service(alone, clock)) as service:
                tick(service)
                assert rounds_of(service, run_id) == [(0, "committed", "3 updates")]
                assert_same(versions(service, run_id)[1], wanted)
                assert secrets_kept(service) == 0
