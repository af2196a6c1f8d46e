"""Which of a run's bundles a device takes, and what becomes of that one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from bundle_variants import WEIGHTS, Change, offer_variant, weighing, with_room_for
from fake_bundle import stamped
from fake_runtime import QuadraticRuntime, Telling
from fake_service import FakeService
from killed import Killed
from strong_device import STRONG

from edge_sdk.client import EdgeClient
from edge_sdk.events import Event, RankChosen, StepDone
from edge_sdk.folder import DeviceFolder
from hetlora.bundle import Bundle
from hetlora.cost import StepCost
from hetlora.errors import BundleInvalid
from hetlora.manifest import ExecutorchFiles, Manifest
from hetlora.messages.common import ObjectRef
from hetlora.messages.device import StartRequest

MakeClient = Callable[..., EdgeClient]
INT8 = weighing(100, "int8")  # 160 MB at rank 1, 220 at 2, 340 at 4
INT4 = weighing(50, "int4")  # 110, 170, 290


@pytest.fixture
def service() -> FakeService:
    """Its bundle takes 460 MB at rank 1, 520 at rank 2 and 640 at rank 4, which is the run's highest."""
    return FakeService(change=weighing(400))


def taken(service: FakeService) -> list[StartRequest]:
    """What the one device has asked to start with, at which the work was taken."""
    assert service.failures == []
    return service.starts


def test_device_with_room_for_all_ranks_of_the_own_bundle_reads_no_other_manifest(
    service: FakeService, make_client: MakeClient
) -> None:
    offer_variant(service, INT8)
    assert make_client(capabilities=with_room_for(640)).run_once().outcome == "accepted"
    assert taken(service) == [StartRequest(rank=4)]
    assert [name for name in service.fetched() if "int8" in name] == []


def test_device_without_room_for_the_own_bundle_takes_a_variant_and_fetches_its_files_alone(
    service: FakeService, make_client: MakeClient
) -> None:
    int8 = offer_variant(service, INT8)
    events: list[Event] = []
    client = make_client(capabilities=with_room_for(340), on_event=events.append)
    assert client.run_once().outcome == "accepted"
    assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)]
    assert WEIGHTS not in service.fetched()
    assert {"manifest.json", "int8 manifest", "int8 weights"} <= set(service.fetched())
    assert [event.variant for event in events if isinstance(event, RankChosen)] == [int8.sha256]


def test_variant_is_taken_for_a_higher_rank(service: FakeService, make_client: MakeClient) -> None:
    int8 = offer_variant(service, INT8)
    make_client(capabilities=with_room_for(639)).run_once()  # rank 2 with the own bundle
    assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)]


def test_of_bundles_that_give_one_rank_the_first_is_taken(
    service: FakeService, make_client: MakeClient
) -> None:
    offer_variant(service, weighing(390, "int8"))  # 450 MB at rank 1, 510 at 2 and 630 at 4
    make_client(capabilities=with_room_for(629)).run_once()
    assert taken(service) == [StartRequest(rank=2)]


def test_variants_are_taken_in_the_order_of_the_run(service: FakeService, make_client: MakeClient) -> None:
    int8 = offer_variant(service, INT8)
    int4 = offer_variant(service, INT4)
    client = make_client(capabilities=with_room_for(340))
    client.run_once()
    assert "int4 manifest" not in service.fetched()  # int8 cannot be surpassed
    client = make_client(capabilities=with_room_for(290))
    client.run_once()
    assert taken(service) == [
        StartRequest(rank=4, variant=int8.sha256),
        StartRequest(rank=4, variant=int4.sha256),
    ]


def test_variant_that_leaves_texts_whole_is_taken_at_a_lower_rank(make_client: MakeClient) -> None:
    def long_texts(change: Change, mb_per_token: int) -> Change:
        """Of 8 tokens, which the run lets a device cut to one."""

        def changed(manifest: Manifest) -> Manifest:
            manifest = change(manifest)
            live = (StepCost(per_token=mb_per_token * 1_000_000),)
            return manifest.model_copy(
                update={"cost_model": manifest.cost_model.model_copy(update={"live_bytes": live})}
            )

        return changed

    service = FakeService(change=long_texts(weighing(0), 100))  # 920 MB a row, and 115 MB a token
    whole = offer_variant(service, long_texts(weighing(300, "int8"), 10))  # 92 MB a row
    assert service.offer is not None
    training = service.offer.training.model_copy(update={"min_tokens": 1})
    service.offer = service.offer.model_copy(update={"training": training})
    make_client(capabilities=with_room_for(500), http=service.http).run_once()
    # With the own bundle 2 tokens at rank 4, 230 + 240 MB; with the variant 8 at rank 1, 300 + 92 + 60 MB.
    assert taken(service) == [StartRequest(rank=1, variant=whole.sha256)]


def test_variant_that_the_service_does_not_have_leaves_the_own_bundle(
    service: FakeService, make_client: MakeClient
) -> None:
    del service.objects[offer_variant(service, INT8).sha256]
    assert make_client(capabilities=with_room_for(520)).run_once().outcome == "accepted"
    assert taken(service) == [StartRequest(rank=2)]


def test_reason_of_the_own_bundle_is_told_whichever_was_refused_first(
    service: FakeService, make_client: MakeClient
) -> None:
    offer_variant(service, weighing(10, "int8", labels=("warm", "cold")))
    visit = make_client(capabilities=with_room_for(159)).run_once()
    assert (visit.outcome, visit.code) == ("failed", "device_too_small")


def test_variant_that_rotted_is_fetched_again(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    int8 = offer_variant(service, INT8)
    client = make_client(capabilities=with_room_for(340))
    client.run_once()
    client.close()
    rotted = folder.bundles / int8.sha256 / WEIGHTS
    kept = rotted.stat()
    rotted.write_bytes(bytes(kept.st_size))
    os.utime(rotted, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    torn = Telling(BundleInvalid("the weights are torn"))
    client = make_client(capabilities=with_room_for(340), runtime=torn)
    assert client.run_once().code == "bundle_invalid"
    client.close()
    assert make_client(capabilities=with_room_for(340)).run_once().outcome == "accepted"
    assert service.fetched().count("int8 weights") == 2


def test_device_without_room_for_any_declines_for_the_own_bundles_reason(
    service: FakeService, make_client: MakeClient
) -> None:
    offer_variant(service, INT8)
    visit = make_client(capabilities=with_room_for(159)).run_once()
    assert (visit.outcome, visit.code) == ("failed", "device_too_small")
    assert "535 MiB to train in" in visit.reason  # the 460 MB of rank 1 and the 96 MiB of a process
    assert "int8 weights" not in service.fetched()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": ("warm", "cold")}, "it means something else"),
        ({"task": "image-classification"}, "its manifest is none"),
    ],
)
def test_variant_that_is_none_is_not_believed(
    service: FakeService, make_client: MakeClient, changes: dict[str, object], why: str
) -> None:
    offer_variant(service, weighing(100, "int8", **changes))
    make_client(capabilities=with_room_for(520)).run_once()
    assert taken(service) == [StartRequest(rank=2)], why


def test_variant_stamped_for_a_rank_that_pruning_has_left_is_passed_over(
    service: FakeService, make_client: MakeClient
) -> None:
    offer_variant(service, lambda manifest: stamped(INT8(manifest), rows=2, tokens=16, rank=4))
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"max_rank": 2})
    make_client(capabilities=with_room_for(460)).run_once()
    assert taken(service) == [StartRequest(rank=1)]


def test_variant_is_taken_where_the_disk_has_no_room_for_the_own_bundle(make_client: MakeClient) -> None:
    def huge(manifest: Manifest) -> Manifest:
        entry = manifest.files[WEIGHTS].model_copy(update={"size_bytes": 2**50})
        return manifest.model_copy(update={"files": {**manifest.files, WEIGHTS: entry}})

    service = FakeService(change=lambda manifest: huge(weighing(400)(manifest)))
    int8 = offer_variant(service, INT8)
    make_client(http=service.http).run_once()
    assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)]


@dataclass
class ByPrecision:
    """Opens runtimes of one line of algebra; those of bundles in one precision have no memory for a step."""

    too_large: str | None = None
    opened: list[str] = field(default_factory=list)

    def __call__(self, bundle: Bundle, ranks: Mapping[str, int], *, threads: int | None) -> QuadraticRuntime:
        precision = bundle.manifest.base_precision
        self.opened.append(precision)
        return Telling(MemoryError()) if precision == self.too_large else QuadraticRuntime()


def test_device_whose_trial_ends_for_want_of_memory_goes_on_to_a_variant(
    service: FakeService, make_client: MakeClient
) -> None:
    int8 = offer_variant(service, INT8)
    runtime = ByPrecision("float32")
    measured = STRONG.model_copy(update={"source": "measured"})
    for _ in range(2):
        assert make_client(capabilities=measured, runtime=runtime).run_once().outcome == "accepted"
    assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)] * 2
    # Both are tried in the first visit; in the second neither is, and the own one not trained with either.
    assert runtime.opened == ["float32", "int8", "int8", "int8"]


def test_bundle_that_only_a_trial_could_show_to_fit_comes_after_one_that_fits(
    service: FakeService, make_client: MakeClient
) -> None:
    # Seven eighths of what rank 1 of the own bundle wants at 0.7 of the free memory: it would fit 0.8.
    room = with_room_for(460).memory_available_bytes * 7 // 8
    lean = STRONG.model_copy(update={"source": "measured", "memory_available_bytes": room})
    runtime = ByPrecision()
    assert make_client(capabilities=lean, runtime=runtime).run_once().outcome == "accepted"
    assert runtime.opened == ["float32"] * 2
    service.offer = None
    other = FakeService(change=weighing(401))
    int8 = offer_variant(other, INT8)
    runtime = ByPrecision()
    client = make_client(capabilities=lean, runtime=runtime, http=other.http)
    assert client.run_once().outcome == "accepted"
    assert taken(other) == [StartRequest(rank=4, variant=int8.sha256)]
    assert runtime.opened == ["int8"] * 2


class OfExecutorch(QuadraticRuntime):
    """Opens the files of bundles that were exported for ExecuTorch."""

    name = "executorch"


def test_bundle_without_files_for_the_runtime_of_this_device_is_passed_over(
    service: FakeService, make_client: MakeClient
) -> None:
    program = ExecutorchFiles(training="training.onnx", inference="inference.onnx", base_weights=WEIGHTS)
    for_executorch = offer_variant(service, weighing(400, "int8", executorch=program))
    make_client(runtime=OfExecutorch()).run_once()
    assert taken(service) == [StartRequest(rank=4, variant=for_executorch.sha256)]


class TestAfterAKill:
    """A process that was killed in its second step, with the variant."""

    @pytest.fixture
    def int8(self, service: FakeService, make_client: MakeClient) -> ObjectRef:
        def kill(event: Event) -> None:
            if isinstance(event, StepDone) and event.step == 2:
                raise Killed

        int8 = offer_variant(service, INT8)
        with pytest.raises(Killed):
            make_client(capabilities=with_room_for(340), on_event=kill).run_once()
        return int8

    def test_work_goes_on_with_the_variant_though_there_is_room_for_the_own_bundle_by_now(
        self, service: FakeService, make_client: MakeClient, int8: ObjectRef
    ) -> None:
        assert make_client(capabilities=STRONG).run_once().outcome == "accepted"
        assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)]
        assert WEIGHTS not in service.fetched()

    def test_work_without_room_for_the_variant_by_now_is_given_back(
        self, service: FakeService, make_client: MakeClient, int8: ObjectRef
    ) -> None:
        assert make_client(capabilities=with_room_for(339)).run_once().code == "device_too_small"


def test_adapters_of_a_round_belong_to_the_bundle_that_it_was_trained_with(
    service: FakeService, make_client: MakeClient, folder: DeviceFolder
) -> None:
    int8 = offer_variant(service, INT8)
    client = make_client(capabilities=with_room_for(340))
    client.run_once()
    current = client.adapters.current()
    assert current is not None
    assert current.bundle == int8.sha256
    bundle, _ = client.adapters.read(current)
    assert bundle.manifest.base_precision == "int8"
    assert sorted(path.name for path in Path(folder.bundles / int8.sha256).iterdir() if path.is_file())


def test_evaluation_is_done_with_what_the_device_has_room_for(
    service: FakeService, make_client: MakeClient
) -> None:
    int8 = offer_variant(service, INT8)
    assert service.offer is not None
    service.offer = service.offer.model_copy(update={"kind": "evaluate", "assignment_id": "evaluation-1"})
    client = make_client(capabilities=with_room_for(340))
    client.held_out.put("snow", "cold")
    assert client.run_once().outcome == "accepted"
    assert taken(service) == [StartRequest(rank=4, variant=int8.sha256)]
    assert WEIGHTS not in service.fetched()
