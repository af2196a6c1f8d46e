"""Over what this device reaches the world."""

from __future__ import annotations

import os
import re
import socket
from typing import Final, Literal

import psutil

from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, number, text, whole

NetworkKind = Literal["ethernet", "wifi", "cellular", "other"]

# Flags of a route (linux/route.h): it is up; it leads nowhere.
_UP: Final = 0x1
_REJECTED: Final = 0x200
_ETHERNET_TYPE: Final = 1  # ARPHRD_ETHER, which Wi-Fi has, too
# Names by which drivers, systemd, Android and Windows call interfaces, tried in this order.
_NAMES: Final[tuple[tuple[str, NetworkKind], ...]] = (
    (r"wwan|wwp|wwx|rmnet|ccmni|ppp|pdp_ip|cellular|mobile", "cellular"),
    (r"wl|ath\d|ra\d|wi-?fi", "wifi"),
    (r"tun|tap|wg|utun|ipsec|docker|veth", "other"),
    (r"eth|en[opsx]|end\d|lan\d", "ethernet"),
)
# An address that stands for none (RFC 5737): to connect a datagram socket sends nothing, and asks the system
# for its route.
_NOWHERE: Final = ("192.0.2.1", 9)


@source
def measure_network(system: System) -> NetworkKind | None:
    """The kind of interface that the default route leads over; None without one, or where nobody tells.

    Of a container this is what is inside of it: mostly "ethernet", whatever the machine has. A phone that is
    tethered by cable is "ethernet", by air "wifi".
    """
    interface = default_interface(system)
    if interface is None:
        return kind_by_name(_interface_of_socket()) if system.is_here else None
    return _kind(f"{system.sys}/class/net/{interface}", interface)


def default_interface(system: System) -> str | None:
    """The interface of the default route with the lowest metric, of IPv4 where there is one, else of IPv6."""
    routes = []
    for line in text(f"{system.proc}/net/route").splitlines()[1:]:
        name, destination, _, flags, _, _, metric, mask, *_ = [*line.split(), *[""] * 8]
        if destination == mask == "00000000":
            routes.append((whole(flags, 16), whole(metric), name))
    if not any(_leads_out(flags, name) for flags, _, name in routes):
        for line in text(f"{system.proc}/net/ipv6_route").splitlines():
            destination, length, _, _, _, metric, _, _, flags, name, *_ = [*line.split(), *[""] * 10]
            if destination == "0" * 32 and length == "00":
                routes.append((whole(flags, 16), whole(metric, 16), name))
    usable = [(metric or 0, name) for flags, metric, name in routes if _leads_out(flags, name)]
    return min(usable)[1] if usable else None


def kind_by_name(interface: str | None) -> NetworkKind | None:
    """What an interface's name says of it; on macOS nothing, where en0 may be either."""
    for pattern, kind in _NAMES:
        if interface is not None and re.match(pattern, interface, re.IGNORECASE):
            return kind
    return None


def _leads_out(flags: int | None, name: str) -> bool:
    is_name = bool(re.fullmatch(r"[\w.:@-]{1,64}", name)) and name not in ("lo", ".", "..")
    return is_name and flags is not None and bool(flags & _UP) and not flags & _REJECTED


def _kind(folder: str, interface: str) -> NetworkKind | None:
    told = re.search(r"^DEVTYPE=(\w+)$", text(f"{folder}/uevent"), re.MULTILINE)
    device_type = told[1] if told else ""
    if device_type == "wwan":
        return "cellular"
    if device_type == "wlan" or any(os.path.exists(f"{folder}/{mark}") for mark in ("wireless", "phy80211")):
        return "wifi"
    by_name = kind_by_name(interface)
    if by_name is None and number(f"{folder}/type") == _ETHERNET_TYPE:
        return "ethernet" if os.path.exists(f"{folder}/device") else "other"
    return by_name or ("other" if os.path.exists(folder) else None)


def _interface_of_socket() -> str | None:
    """The interface whose address the system would send from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(_NOWHERE)
        own = asking.getsockname()[0]
    addresses = psutil.net_if_addrs().items()
    return next((name for name, known in addresses if any(one.address == own for one in known)), None)
