"""The face of the SDK for apps: one object that visits the service and trains when there is work."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx
from pydantic import ValidationError

from edge_sdk.bundles import BundleCache
from edge_sdk.downloads import Downloads
from edge_sdk.events import CheckedIn, Downloaded, Event
from edge_sdk.examples import DEFAULT_MAX_EXAMPLES, ExampleStore
from edge_sdk.folder import lock_folder, open_folder
from edge_sdk.identity import Identity, load_or_create_identity
from edge_sdk.probe import measure_capabilities
from edge_sdk.runtimes.base import RuntimeFactory
from edge_sdk.service import DeviceService
from edge_sdk.session import AWAY, Equipment, Session
from edge_sdk.transport import Transport
from edge_sdk.uploads import DEFAULT_PART_BYTES, Uploads
from edge_sdk.visit import Visit
from hetlora import __version__
from hetlora.errors import SettingsError, UnknownDevice, faults_in_words
from hetlora.messages.common import PROTOCOL_VERSION
from hetlora.messages.device import CapabilityReport, CheckIn, CheckInAnswer, EnrolRequest

logger = logging.getLogger(__name__)

# How long run_forever waits for a service that is away: doubling, with full jitter, up to five minutes.
FIRST_ABSENCE_SECONDS: Final = 5.0
LONGEST_ABSENCE_SECONDS: Final = 300.0
# Whatever a service asks for: a device that never comes back is lost.
LONGEST_WAIT_SECONDS: Final = 7 * 24 * 3600.0


def _ignore(event: Event) -> None:
    pass


class EdgeClient:
    """One device of one population.

        with EdgeClient("https://fl.example.org", "keyboard", folder, enrolment_token=token) as client:
            client.examples.put("where is my parcel", "delivery")
            visit = client.run_once()

    Use one client per folder at a time. `examples` may be used from any thread, also while the client trains.

    Args:
        service_url: where the service answers.
        population: which learning problem this device takes part in.
        folder: where the device's key, examples and bundles live from one start to the next.
        enrolment_token: admits the device on its first visit; not needed after that.
        name: shown to operators.
        capabilities: a profile given by hand, for simulations; None measures this device.
        traffic_bytes_per_round: what adapters may take over the network in a round, down and up together,
            for a metered line; None sets no limit. It goes with measured capabilities: a profile has its own,
            and both together are refused.
        upload_part_bytes: an update that is larger goes up in parts of this size; one that is cut off goes on
            after the last part that arrived.
        threads: how many threads training may use; None leaves it to the runtime.
        max_examples: how many examples the store keeps.
        on_event: told what happens, from the thread that runs the client. What it raises fails the visit.
        runtime: opens training sessions; None is ONNX Runtime, or ExecuTorch where only that is installed.
        http: the connection layer, for a private certificate authority, a proxy, or a test.
        clock: Unix seconds, for signatures.

    Raises:
        SettingsError: an address, name, size, folder or key file that cannot be used.
    """

    def __init__(
        self,
        service_url: str,
        population: str,
        folder: Path | str,
        *,
        enrolment_token: str | None = None,
        name: str = "",
        capabilities: CapabilityReport | None = None,
        traffic_bytes_per_round: int | None = None,
        upload_part_bytes: int = DEFAULT_PART_BYTES,
        threads: int | None = None,
        max_examples: int = DEFAULT_MAX_EXAMPLES,
        on_event: Callable[[Event], None] = _ignore,
        runtime: RuntimeFactory | None = None,
        http: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if capabilities is not None and traffic_bytes_per_round is not None:
            raise SettingsError(
                "traffic_bytes_per_round is given twice",
                got="a number of its own, and capabilities by hand",
                expected="capabilities with traffic_bytes_per_round in them",
            )
        self._capabilities = capabilities
        self._traffic_bytes_per_round = traffic_bytes_per_round
        self._threads = threads
        self._on_event = on_event
        self._runtime = runtime
        self._folder = open_folder(Path(folder))
        self._lock = lock_folder(self._folder)
        self._identity = load_or_create_identity(self._folder.key_file)
        self._population = population
        self._may_enrol = enrolment_token is not None
        self._enrolment = _enrolment(population, name, enrolment_token, self._identity)
        self._transport = Transport(service_url, self._identity, http=http, clock=clock)
        self._service = DeviceService(self._transport)
        self._downloads = Downloads(
            self._transport, self._folder.downloads, lambda name, size: on_event(Downloaded(name, size))
        )
        self._uploads = Uploads(self._transport, part_bytes=upload_part_bytes)
        self._bundles = BundleCache(self._folder.bundles, self._downloads)
        self._matmul_flops_per_second: float | None = None
        self.examples = ExampleStore(self._folder.examples_file, max_examples=max_examples)

    @property
    def device_id(self) -> str:
        """This device's name at the service, made from its public key."""
        return self._identity.device_id

    def close(self) -> None:
        """Close connections and the example store."""
        self._transport.close()
        self.examples.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run_once(self) -> Visit:
        """Visit the service once: check in and, if there is work for this device, do it.

        What stops an assignment (too small a device, no examples, a loss that is no number) is told to the
        service and in the `Visit`; it does not raise.

        Raises:
            ServiceUnreachable, ServiceFailed, ClockSkew: the service is away or ill, or this device's clock
                is wrong; a later visit goes on where this one stopped.
            RefusedError: the service does not admit this device; the subclass says why.
        """
        capabilities = self._capabilities or self._measure()
        answer = self._check_in(capabilities)
        self._on_event(CheckedIn(answer.offer, answer.reason))
        if answer.offer is None:
            return Visit("no_work", answer.reason, answer.retry_after_seconds)
        equipment = Equipment(
            service=self._service,
            downloads=self._downloads,
            uploads=self._uploads,
            bundles=self._bundles,
            folder=self._folder,
            examples=self.examples,
            capabilities=capabilities,
            runtime=self._runtime,
            threads=self._threads,
            on_event=self._on_event,
        )
        return Session(answer.offer, equipment).run()

    def run_forever(
        self, *, stop: threading.Event | None = None, on_visit: Callable[[Visit], None] = lambda visit: None
    ) -> None:
        """Visit again and again, at the pace that the service asks for, until `stop` is set.

        Set `stop` from another thread, or from `on_visit`, which sees each visit. A visit under way is
        finished first. A service that is away is tried again, less and less often.

        Raises:
            RefusedError: the service does not admit this device.
        """
        stop = stop or threading.Event()
        absences = 0
        jitter = random.Random()
        while not stop.is_set():
            try:
                visit = self.run_once()
            except AWAY as error:
                absences += 1
                longest = min(LONGEST_ABSENCE_SECONDS, FIRST_ABSENCE_SECONDS * 2 ** (absences - 1))
                wait_seconds = jitter.uniform(0, longest)
                logger.warning("event=service_away retry_seconds=%.1f error=%s", wait_seconds, error)
            else:
                absences = 0
                wait_seconds = min(visit.retry_after_seconds, LONGEST_WAIT_SECONDS)
                on_visit(visit)
            stop.wait(wait_seconds)

    def _measure(self) -> CapabilityReport:
        # Free memory and disk change between visits, the rate hardly: measuring it costs a core.
        report = measure_capabilities(
            self._folder.root,
            matmul_flops_per_second=self._matmul_flops_per_second,
            traffic_bytes_per_round=self._traffic_bytes_per_round,
        )
        self._matmul_flops_per_second = report.matmul_flops_per_second
        return report

    def _check_in(self, capabilities: CapabilityReport) -> CheckInAnswer:
        request = CheckIn(
            protocol_version=PROTOCOL_VERSION,
            sdk_version=__version__,
            population=self._population,
            capabilities=capabilities,
            example_count=self.examples.count(),
        )
        try:
            return self._service.check_in(request)
        except UnknownDevice as error:
            # The service knows best whether it knows us: also after it lost its database.
            if not self._may_enrol:
                raise UnknownDevice(error.what, got=error.got, expected="an enrolment token") from error
        status = self._service.enrol(self._enrolment)
        logger.info("device=%s state=%s event=enrolled", status.device_id, status.state)
        return self._service.check_in(request)


def _enrolment(population: str, name: str, token: str | None, identity: Identity) -> EnrolRequest:
    try:
        return EnrolRequest(
            population=population,
            # Built without a token too, though never sent then: the schema checks the other fields.
            enrolment_token="none" if token is None else token,
            public_key=identity.public_key,
            name=name,
        )
    except ValidationError as error:
        raise SettingsError(
            "this device cannot enrol under these settings", got=faults_in_words(error.errors())
        ) from error
