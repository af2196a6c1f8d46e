"""The face of the SDK for apps: one object that visits the service and trains when there is work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edge_sdk.adapters.policy import ALWAYS, Adoption
from edge_sdk.defaults import DEFAULT_MAX_BYTES, DEFAULT_MAX_EXAMPLES, DEFAULT_PART_BYTES
from hetlora.messages.conditions import ANY_TIME, Conditions

# What works is imported where a client is made: an app that names the class has not asked for it yet.
if TYPE_CHECKING:
    import httpx

    from edge_sdk.conditions import Told
    from edge_sdk.events import Event
    from edge_sdk.examples import StoreKey
    from edge_sdk.runtimes.base import RuntimeFactory
    from edge_sdk.session.visit import Visit
    from hetlora.messages.device import CapabilityReport


def _ignore(event: Event) -> None:
    pass


class EdgeClient:
    """One device of one population.

        with EdgeClient("https://fl.example.org", "keyboard", folder, enrolment_token=token) as client:
            client.examples.put("where is my parcel", "delivery")
            visit = client.run_once()

    Use one client per folder at a time. Both stores may be used from any thread, also during a visit.
    What is in `held_out` is not trained on: adapters are evaluated on it where a run asks for that, and loss
    and accuracy are told to the service. A device that holds nothing out is not asked.

    What rounds leave behind is in `adapters`: models that answer under the adapter in use, from any thread.

    Args:
        service_url: where the service answers.
        population: which learning problem this device takes part in.
        folder: where the device's key, examples and bundles live from one start to the next.
        enrolment_token: admits the device on its first visit; not needed after that, nor by a device that an
            operator preauthorized.
        name: shown to operators.
        capabilities: a profile given by hand, for simulations; None measures this device.
        traffic_bytes_per_round: what adapters may take over the network in a round, down and up together,
            for a metered line; None sets no limit. It goes with measured capabilities: a profile has its own,
            and both together are refused.
        upload_part_bytes: an update that is larger goes up in parts of this size; one that is cut off goes on
            after the last part that arrived.
        threads: how many threads training may use; None leaves it to the runtime.
        conditions: when this device may work; a run may ask more, never less. They are looked at before each
            visit, before each request for a file, between any two steps, and before an update goes up.
        is_charging, is_metered, is_idle: what the app knows of the device where that is asked, better than
            the system; None, or an answer of None, is unknown. Without `is_idle` no device is idle; without
            `is_metered` ethernet and Wi-Fi cost nothing.
        adoption: when a new adapter takes the place of the one in use.
        max_examples: how many examples each of the two stores keeps; the oldest go first.
        max_example_bytes: how much these may take in each, as they are stored.
        keep_examples_seconds: how long examples are kept that do not say so themselves; None is without end.
        held_out_share: of what is put into `examples`, which share goes to `held_out`, always the same
            examples; what is deleted from `examples` is then deleted from both, also once the share is left
            out again. None leaves it to the app.
        encryption_key: 32 random bytes that the app keeps, or what asks its keystore for them: both stores
            are encrypted under it from now on. Bundles, updates and the device's key are not.
        previous_encryption_key: the one before, for a device that may have been killed while it took the new.
        on_event: told what happens, from the thread that runs the client. What it raises fails the visit.
        runtime: opens training sessions; None is ONNX Runtime, or ExecuTorch or PyTorch
            where only those are installed and the bundle is for them (`edge_sdk.runtime_named`).
        ca_file: PEM of who may vouch for the service; None leaves it to the usual authorities.
        tls_pins: keys of which the service's certificate chain has to hold one, beside being verified, as
            `hetlora tls pin` shows them: SHA-256 of SubjectPublicKeyInfo in base64. Several outlast a key.
        proxy: by which to reach the service, http(s)://[USER:PASSWORD@]HOST[:PORT]; None leaves it to
            HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY of the environment.
        http: a connection layer of one's own, or of a test, in place of these three.
        clock: Unix seconds, for signatures and the age of what was measured.

    Raises:
        SettingsError: an address, name, size, folder, key, pin or proxy that cannot be used.
        DependencyMissing: a SOCKS proxy without what httpx needs for it.
        StoreKeyWrong, StoreDamaged, DiskFull: see `edge_sdk.ExampleStore`; nothing is lost.
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
        conditions: Conditions = ANY_TIME,
        is_charging: Told = None,
        is_metered: Told = None,
        is_idle: Told = None,
        adoption: Adoption = ALWAYS,
        max_examples: int = DEFAULT_MAX_EXAMPLES,
        max_example_bytes: int = DEFAULT_MAX_BYTES,
        keep_examples_seconds: float | None = None,
        held_out_share: float | None = None,
        encryption_key: StoreKey | None = None,
        previous_encryption_key: StoreKey | None = None,
        on_event: Callable[[Event], None] = _ignore,
        runtime: RuntimeFactory | None = None,
        ca_file: Path | str | None = None,
        tls_pins: Sequence[str] = (),
        proxy: str | None = None,
        http: httpx.BaseTransport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        from edge_sdk.conditions import LeftAlone, Watch
        from edge_sdk.planning.capabilities import Capabilities
        from edge_sdk.session.enrolment import enrolment_of
        from edge_sdk.session.opening import equip, open_examples, open_kept, open_line
        from edge_sdk.session.visitor import Visitor
        from edge_sdk.transport.way import Way

        way, watch = Way(ca_file, tls_pins, proxy, http), Watch(conditions, is_charging, is_metered, is_idle)
        with ExitStack() as opened:
            kept = open_kept(Path(folder), clock, opened)
            measured = Capabilities(kept.folder, capabilities, traffic_bytes_per_round, clock=clock)
            transport = open_line(service_url, kept, way, clock, opened)
            enrolment = enrolment_of(population, name, enrolment_token, transport.identity)
            self.examples, self.held_out = open_examples(
                kept,
                held_out_share,
                opened,
                max_examples=max_examples,
                max_bytes=max_example_bytes,
                keep_seconds=keep_examples_seconds,
                encryption_key=encryption_key,
                previous_encryption_key=previous_encryption_key,
                clock=clock,
            )
            tools = equip(
                kept,
                transport,
                self.examples,
                self.held_out,
                upload_part_bytes=upload_part_bytes,
                adoption=adoption,
                measured=measured,
                runtime=runtime,
                threads=threads,
                watch=watch,
                on_event=on_event,
            )
            self.adapters = tools.adapters
            self._visitor = Visitor(enrolment, transport, kept.identities, measured, LeftAlone(clock), tools)
            self._opened = opened.pop_all()

    @property
    def device_id(self) -> str:
        """This device's name at the service, made from its first public key."""
        return self._visitor.transport.identity.device_id

    def rotate_key(self) -> None:
        """Replace this device's key at the service and in its folder; its id stays, the key so far is void.

        A rotation that broke off is finished by the next visit, or by this.

        Raises:
            ServiceAway: see `run_once`.
            RefusedError: the service does not know this device, or does not admit it; its key stays.
        """
        self._visitor.rotate_key()

    def close(self) -> None:
        """Close connections, the example stores and the database."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def run_once(self, *, stop: threading.Event | None = None) -> Visit:
        """Visit the service once, if this device may work now: check in and, if there is work for it, do it.

        Where another thread sets `stop`, the visit ends with the step or the request that is under way, and
        its assignment stays this device's: a later visit goes on with it. So does one after a killed process.

        What stops an assignment (too small a device, no examples, a loss that is no number) is told to the
        service and in the `Visit`; it does not raise.

        Raises:
            ServiceAway: the service is away, ill or busy, something on the way sends every request twice, or
                this device's clock is wrong; a later visit goes on where this one stopped.
            RefusedError: the service does not admit this device; the subclass says why.
            UnavailableError: this system does not tell what planning needs; give `capabilities` by hand.
        """
        return self._visitor.once(stop)

    def run_forever(
        self, *, stop: threading.Event | None = None, on_visit: Callable[[Visit], None] = lambda visit: None
    ) -> None:
        """Visit again and again, at the pace that the service asks for, until `stop` is set.

        Set `stop` from another thread, or from `on_visit`, which sees each visit. A visit under way ends as
        `run_once` says. A service that is away is tried again, less and less often, and so is a device that
        cannot work, for want of disk space for example, or as `on_event` raised.

        Raises:
            RefusedError: the service does not admit this device.
            InputError: something of this device cannot be used, a store that is damaged for one.
            Exception: what `on_visit` raises.
        """
        from edge_sdk.session.keep_visiting import keep_visiting

        stop = stop or threading.Event()
        keep_visiting(partial(self._visitor.once, stop), stop, on_visit)
