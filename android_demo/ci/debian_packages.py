"""Packages of several releases of Debian, unpacked into a folder; nothing is installed.

apt fetches them with a configuration of its own, from the mirror that this machine takes Debian from, and
holds them against the archive's signature.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from toolchain import ToolchainMissing, run

KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
CONFIGURATION: Final = """
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
Acquire::Languages "none";
APT::Sandbox::User "root";
"""


def unpack_packages(packages: Mapping[str, Sequence[str]], target: Path) -> None:
    """Have packages in a folder, by names of releases; left as they are where they are there already.

    Raises:
        ToolchainMissing: no apt, or a package that cannot be had.
    """
    mark = target.with_suffix(".sha256")
    wanted = hashlib.sha256(repr(packages).encode()).hexdigest()
    if target.exists() and mark.exists() and mark.read_text() == wanted:
        return
    mark.unlink(missing_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent) as folder:
        _download(packages, Path(folder))
        for archive in sorted(Path(folder).glob("*.deb")):
            run(["dpkg-deb", "-x", str(archive), str(target)], f"{archive.name} cannot be unpacked")
    mark.write_text(wanted)


def _download(packages: Mapping[str, Sequence[str]], folder: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ToolchainMissing(f"there is no {tool} here, and packages of Debian are needed")
    mirror = _mirror()
    lines = [f"deb [signed-by={KEYRING}] {mirror} {release} main\n" for release in packages]
    (folder / "sources.list").write_text("".join(lines))
    (folder / "status").touch()
    (folder / "lists" / "partial").mkdir(parents=True)
    (folder / "archives" / "partial").mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder))
    own = os.environ | {"APT_CONFIG": str(configuration)}
    releases = ", ".join(packages)
    run(["apt-get", "update", "--error-on=any"], f"the lists of Debian's {releases} cannot be had", env=own)
    names = [f"{package}/{release}" for release, each in packages.items() for package in each]
    run(["apt-get", "download", *names], "a package of Debian cannot be had", env=own, cwd=folder)


def _mirror() -> str:
    """Where this machine takes Debian from.

    Raises:
        ToolchainMissing: it takes none.
    """
    ask = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    for _ in range(2):
        told = subprocess.run(ask, capture_output=True, text=True).stdout
        found = [uri for uri in told.split() if not re.search(r"security", uri)]
        if found and KEYRING.exists():
            return found[0]
        # A machine that never asked for the lists of packages knows of none.
        subprocess.run(["apt-get", "update", "--quiet"], capture_output=True)
    raise ToolchainMissing("this machine takes no packages from Debian, and has no debian-archive-keyring")
