"""Builds a Linux for aarch64 in a folder: Debian's Python, a device's packages, and an emulator to run it.

    python tests/aarch64/user_space.py MIRROR [FOLDER]

MIRROR is the address of one of Debian's mirrors, as in the sources of apt.
It needs `apt-get` and `dpkg-deb` with Debian's keys, this Python's pip, their servers and 1.5 GB; no root.
Nothing is installed outside of the folder. `FOLDER/bin/python` is then a Python on a Cortex-A76, as a
Raspberry Pi 5 has it, or on the processor that HETLORA_AARCH64_CPU names in the emulator's words.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DEFAULT_FOLDER: Final = ROOT / "build" / "aarch64"
PYTHON: Final = "bin/python"

_KEYS: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"
# The emulator of bookworm itself shows programs the processor of the host in /proc/cpuinfo.
_EMULATOR_SUITE: Final = "bookworm-backports"
_LIBRARIES: Final = ("python3.11", "libpython3.11", "libstdc++6", "libgomp1")
# The last torch whose wheel for aarch64 asks for no CUDA, and the last executorch that loads with it.
_RUNTIME: Final = ("torch==2.10.0", "executorch==1.3.1")
# What `hetlora[edge-executorch]` depends on but for these two, whose own dependencies a device does not use.
_PACKAGES: Final = (
    *("cryptography", "filelock", "httpx", "numpy", "psutil", "pydantic", "rich", "safetensors"),
    *("stamina", "threadpoolctl", "tokenizers", "typer", "typing-extensions"),
)
# What the SDK's own tests need beside it.
_TESTING: Final = ("hypothesis", "pillow", "pytest", "pytest-timeout", "scipy", "uvicorn")
_PLATFORMS: Final = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")


def build(mirror: str, folder: Path) -> Path:
    """Fill the folder and return its Python; one that is there already is kept.

    Raises:
        subprocess.CalledProcessError: a server is out of reach, or does not have a package.
    """
    python = folder / PYTHON
    if python.exists():
        return python
    system, packages, emulator = folder / "system", folder / "packages", folder / "emulator"
    _unpack(mirror, "amd64", _EMULATOR_SUITE, ["qemu-user"], emulator, with_dependencies=False)
    _unpack(mirror, "arm64", "bookworm", _LIBRARIES, system)
    _install([*_PACKAGES, *_TESTING], packages)
    _install(_RUNTIME, packages, "--no-deps")
    python.parent.mkdir(parents=True, exist_ok=True)
    command = [emulator / "usr/bin/qemu-aarch64", "-cpu", "${HETLORA_AARCH64_CPU:-cortex-a76}", "-L", system]
    words = " ".join(f'"{word}"' for word in command)
    path = f'PYTHONPATH="{packages}:{ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"'
    python.write_text(f'#!/bin/sh\n{path} exec {words} "{system / "usr/bin/python3.11"}" "$@"\n')
    python.chmod(0o755)
    # Processes that a program starts of itself are emulated like it.
    (packages / "sitecustomize.py").write_text(f"import sys\n\nsys.executable = {str(python)!r}\n")
    return python


def _unpack(
    mirror: str,
    architecture: str,
    suite: str,
    names: Sequence[str],
    into: Path,
    *,
    with_dependencies: bool = True,
) -> None:
    """Unpack Debian's packages for one architecture, with a state of apt of their own."""
    state = into.with_suffix(".apt")
    for part in ("lists/partial", "cache/archives/partial"):
        (state / part).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    sources = state / "sources.list"
    sources.write_text(f"deb [arch={architecture} signed-by={_KEYS}] {mirror} {suite} main\n")
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "true",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::State::lists": state / "lists",
        "Dir::Cache": state / "cache",
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    archives = state / "cache" / "archives"
    _run([*apt, "update"])
    if with_dependencies:
        _run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", *names])
    else:
        _run([*apt, "download", *names], archives)
    for package in sorted(archives.glob("*.deb")):
        _run(["dpkg-deb", "--extract", str(package), str(into)])


def _install(names: Sequence[str], into: Path, *options: str) -> None:
    platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    pip += ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", *platforms, *options]
    pinned = [] if "--no-deps" in options else ["--constraint", str(ROOT / "constraints.txt")]
    _run([*pip, "--target", str(into), "--upgrade", *pinned, *names])


def _run(command: Sequence[str], where: Path | None = None) -> None:
    print(shlex.join(command[:1] + command[-2:]), file=sys.stderr)
    subprocess.run(command, check=True, cwd=where, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    print(build(sys.argv[1], Path(sys.argv[2]).absolute() if len(sys.argv) == 3 else DEFAULT_FOLDER))
