from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from fake_service import FakeService, pieces, problem

from edge_sdk.folder import DeviceFolder
from edge_sdk.transport.downloads import RATE_BYTES, Downloads
from edge_sdk.transport.transport import Transport
from hetlora.digest import sha256_of
from hetlora.errors import (
    BodyTooLarge,
    ClockSkew,
    ConditionsUnmet,
    DigestMismatch,
    NotFound,
    ServiceUnreachable,
)
from hetlora.messages.common import ObjectRef

DATA = bytes(range(256)) * 20  # 5120 bytes, six pieces of up to 1000
REF = ObjectRef(sha256=sha256_of(DATA), size_bytes=len(DATA))


@pytest.fixture
def downloads(service: FakeService, transport: Transport, folder: DeviceFolder) -> Downloads:
    service.objects[REF.sha256] = DATA
    return Downloads(transport, folder.downloads)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "arrived" / "data.bin"


def _leftovers(folder: DeviceFolder) -> list[Path]:
    return list(folder.downloads.iterdir())


def test_object_arrives_under_its_name(downloads: Downloads, target: Path, folder: DeviceFolder) -> None:
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA
    assert downloads.received_bytes == len(DATA)
    assert _leftovers(folder) == []


def test_file_is_told_when_it_is_verified(
    service: FakeService, transport: Transport, folder: DeviceFolder, target: Path
) -> None:
    service.objects[REF.sha256] = DATA
    told: list[tuple[str, int]] = []
    Downloads(transport, folder.downloads, lambda *file: told.append(file)).fetch(REF, target, name="data")
    assert told == [("data", 5120)]


def test_cut_download_goes_on_where_it_stopped(
    service: FakeService, downloads: Downloads, target: Path
) -> None:
    service.faults = [httpx.Response(200, content=pieces(DATA, cut_after=2))]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA
    assert downloads.received_bytes == len(DATA)  # 2000 and 3120: nothing came twice
    assert len(service.requests) == 2


def test_line_that_keeps_moving_is_not_given_up(
    service: FakeService, downloads: Downloads, target: Path
) -> None:
    # Five cuts are more than the three tries, but each stretch brought 1000 bytes.
    service.faults = [
        httpx.Response(
            206 if start else 200,
            content=pieces(DATA[start:], cut_after=1),
            headers={"Content-Range": f"bytes {start}-5119/5120"},
        )
        for start in range(0, 5000, 1000)
    ]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_dead_line_is_given_up_and_half_is_kept_for_later(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    service.faults = [
        httpx.Response(200, content=pieces(DATA, cut_after=3)),
        *[httpx.ConnectError("refused")] * 3,
    ]
    with pytest.raises(ServiceUnreachable):
        downloads.fetch(REF, target, name="data")
    assert [path.stat().st_size for path in _leftovers(folder)] == [3000]
    assert not target.exists()
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA
    assert downloads.received_bytes == len(DATA)


@pytest.mark.parametrize(
    "whole", [{"ETag": f'"{REF.sha256}"'}, {"Content-Length": "5120"}], ids=["by name", "by length"]
)
def test_service_that_ignores_ranges_starts_over(
    service: FakeService, downloads: Downloads, target: Path, whole: dict[str, str]
) -> None:
    service.faults = [
        httpx.Response(200, content=pieces(DATA, cut_after=2)),
        httpx.Response(200, content=pieces(DATA), headers=whole),
    ]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA
    assert downloads.received_bytes == len(DATA) + 2000


@pytest.mark.parametrize(
    "stranger",
    [
        httpx.Response(200, html="<h1>Accept our terms</h1>"),
        httpx.Response(200, content=pieces(b"<h1>Accept our terms</h1>")),
        httpx.Response(200, json={"error": "log in"}),
        httpx.Response(200, content=pieces(DATA), headers={"ETag": '"another"'}),
        httpx.Response(206, content=pieces(DATA[2000:])),
        httpx.Response(206, content=pieces(DATA), headers={"Content-Range": "bytes 0-5119/5120"}),
        httpx.Response(206, content=pieces(DATA[2000:]), headers={"Content-Range": "bytes 2000-4000/4001"}),
    ],
    ids=["page", "bytes", "json", "another object", "no range", "another range", "another length"],
)
def test_answer_of_something_else_leaves_what_had_arrived(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder, stranger: httpx.Response
) -> None:
    service.faults = [httpx.Response(200, content=pieces(DATA, cut_after=2)), stranger]
    with pytest.raises(ServiceUnreachable, match="not one of a hetlora service"):
        downloads.fetch(REF, target, name="data")
    assert [path.read_bytes() for path in _leftovers(folder)] == [DATA[:2000]]
    downloads.fetch(REF, target, name="data")
    assert downloads.received_bytes == len(DATA)


def test_clock_that_is_found_wrong_on_the_way_leaves_what_had_arrived(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    skewed = problem(ClockSkew("the signature was made at another time"))
    service.faults = [httpx.Response(200, content=pieces(DATA, cut_after=2)), skewed]
    with pytest.raises(ClockSkew):
        downloads.fetch(REF, target, name="data")
    assert [path.read_bytes() for path in _leftovers(folder)] == [DATA[:2000]]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA
    assert downloads.received_bytes == len(DATA)


def test_page_in_the_place_of_an_object_is_not_kept_for_its_beginning(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    service.faults = [httpx.Response(200, html="<h1>Accept our terms</h1>")]
    with pytest.raises(ServiceUnreachable, match="not one of a hetlora service"):
        downloads.fetch(REF, target, name="data")
    assert [path.stat().st_size for path in _leftovers(folder)] == [0]


def test_request_that_is_not_allowed_any_more_is_not_made_and_what_arrived_stays(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    def check() -> None:
        if service.requests:
            raise ConditionsUnmet("this device may not work now")

    service.faults = [httpx.Response(200, content=pieces(DATA, cut_after=2))]
    with pytest.raises(ConditionsUnmet), downloads.only_while(check):
        downloads.fetch(REF, target, name="data")
    assert len(service.requests) == 1
    assert [path.stat().st_size for path in _leftovers(folder)] == [2000]
    downloads.fetch(REF, target, name="data")
    assert downloads.received_bytes == len(DATA)


def test_object_that_drips_is_waited_for_only_while_that_is_allowed(
    service: FakeService, transport: Transport, folder: DeviceFolder, target: Path
) -> None:
    now, may_work, checks = 0.0, True, 0

    def dripping() -> Iterator[bytes]:
        nonlocal now, may_work
        for number in range(len(DATA)):
            now += 1.0
            may_work = number < 12  # lost with the thirteenth byte, and looked at after the fifteenth
            yield DATA[number : number + 1]

    def check() -> None:
        nonlocal checks
        checks += 1
        if not may_work:
            raise ConditionsUnmet("this device may not work now")

    downloads = Downloads(transport, folder.downloads, timer=lambda: now)
    service.put(DATA)
    service.faults = [httpx.Response(200, content=dripping())]
    with downloads.only_while(check), pytest.raises(ConditionsUnmet):
        downloads.fetch(REF, target, name="data")
    assert (downloads.arrived_bytes(REF), checks) == (15, 4)  # before the request, and after 5, 10 and 15
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_answer_that_ends_in_good_order_before_its_end_goes_on(
    service: FakeService, downloads: Downloads, target: Path
) -> None:
    named = {"ETag": f'"{REF.sha256}"'}
    service.faults = [
        httpx.Response(200, content=pieces(DATA[:3000])),
        httpx.Response(206, content=pieces(b""), headers=named | {"Content-Range": "bytes 3000-5119/5120"}),
    ]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_damaged_leftover_is_found_out_and_fetched_again(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    (folder.downloads / f"{REF.sha256}.part").write_bytes(b"\xff" + DATA[1:3000])
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_leftover_longer_than_the_object_is_dropped(
    downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    (folder.downloads / f"{REF.sha256}.part").write_bytes(DATA + b"more")
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_flipped_byte_from_the_service_is_refused(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    service.objects[REF.sha256] = DATA[:-1] + b"\x00"
    with pytest.raises(DigestMismatch, match=r"data does not match its digest; got sha256 .*; expected"):
        downloads.fetch(REF, target, name="data")
    assert not target.exists()
    assert _leftovers(folder) == []


def test_byte_flipped_once_on_the_way_does_no_harm(
    service: FakeService, downloads: Downloads, target: Path
) -> None:
    service.faults = [httpx.Response(200, content=pieces(b"\xff" + DATA[1:]))]
    downloads.fetch(REF, target, name="data")
    assert target.read_bytes() == DATA


def test_object_longer_than_promised_is_cut_off(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    service.faults = [httpx.Response(200, content=endless())]
    with pytest.raises(BodyTooLarge, match="data is longer than promised"):
        downloads.fetch(REF, target, name="data")
    assert _leftovers(folder) == []


def test_object_shorter_than_promised_is_refused(
    service: FakeService, downloads: Downloads, target: Path, folder: DeviceFolder
) -> None:
    service.objects[REF.sha256] = DATA[:3000]
    with pytest.raises(DigestMismatch, match="got 3000 bytes; expected 5120 bytes"):
        downloads.fetch(REF, target, name="data")
    assert _leftovers(folder) == []


def test_unknown_object_is_not_found(service: FakeService, downloads: Downloads, target: Path) -> None:
    del service.objects[REF.sha256]
    with pytest.raises(NotFound):
        downloads.fetch(REF, target, name="data")


def test_empty_object_needs_no_request(service: FakeService, downloads: Downloads, target: Path) -> None:
    downloads.fetch(ObjectRef(sha256=sha256_of(b""), size_bytes=0), target, name="nothing")
    assert target.read_bytes() == b""
    assert service.requests == []


def test_rate_is_that_of_the_newest_stretch_that_was_long_enough(
    service: FakeService, transport: Transport, folder: DeviceFolder, target: Path
) -> None:
    now = 0.0

    def arriving(data: bytes, seconds: float) -> Iterator[bytes]:
        nonlocal now
        now += seconds
        yield data

    downloads = Downloads(transport, folder.downloads, timer=lambda: now)
    told = []
    for size, seconds in ((RATE_BYTES, 2.0), (4 * RATE_BYTES, 0.5), (RATE_BYTES - 1, 0.125)):
        data = bytes(size)
        service.faults = [httpx.Response(200, content=arriving(data, seconds))]
        downloads.fetch(ObjectRef(sha256=sha256_of(data), size_bytes=size), target, name="data")
        told.append(downloads.bytes_per_second)
    assert told == [RATE_BYTES / 2, 4 * RATE_BYTES / 0.5, 4 * RATE_BYTES / 0.5]


def test_nothing_is_known_of_the_line_before_a_long_stretch(downloads: Downloads, target: Path) -> None:
    downloads.fetch(REF, target, name="data")
    assert downloads.bytes_per_second is None
