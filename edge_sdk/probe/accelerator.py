"""What computes beside the processor, as operators are told; no plan reckons with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from edge_sdk.probe.source import source
from edge_sdk.probe.system import System, name, text


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A graphics processor with a driver, by kind and name; whether it shares the processor's memory."""

    kind: Literal["none", "nvidia", "tegra"]
    name: str | None = None
    shares_memory: bool | None = None


@source
def measure_accelerator(system: System) -> Accelerator | None:
    """What the kernel tells of NVIDIA's chips; "none" covers all others, and None systems other than Linux.

    A Jetson is known by its device tree, a card by its driver, which has to be loaded: no library is.
    """
    tree = system.proc / "device-tree"
    if re.search(r"(^|\0)nvidia,tegra", text(tree / "compatible")):
        return Accelerator("tegra", name(text(tree / "model")), shares_memory=True)
    for card in sorted(system.proc.glob("driver/nvidia/gpus/*/information")):
        # The file has the card's UUID, too, which is nobody's business.
        model = re.search(r"^Model:(.*)$", text(card), re.MULTILINE)
        return Accelerator("nvidia", name(model[1]) if model else None, shares_memory=False)
    return Accelerator("none") if (system.proc / "cpuinfo").exists() else None
