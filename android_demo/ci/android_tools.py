"""What makes an APK without Google's servers: Debian's builds of Android's tools, of three releases."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from android_platform import write_platform
from compilation import JAVA_FLAGS
from debian_packages import unpack_packages
from toolchain import FOLDER, Toolchain, ToolchainMissing, locked

# The dexer is in bullseye alone. Resources of API 33, which know newer attributes, are in trixie first. Of
# bookworm are the tools, with the libraries of each that a machine need not have.
PACKAGES: Final = {
    "bullseye": ("dalvik-exchange", "libandroid-23-java"),
    "bookworm": (
        *("aapt", "zipalign", "apksigner", "libapksig-java", "libproguard-java"),
        *("android-libaapt", "android-libandroidfw", "android-libbacktrace", "android-libbase"),
        *("android-libcutils", "android-liblog", "android-libunwind", "android-libutils"),
        *("android-libziparchive", "libexpat1", "libpng16-16", "libprotobuf-lite32", "libzopfli1"),
        "p7zip-full",
    ),
    "trixie": ("android-framework-res",),
}
ROOT: Final = FOLDER / "android" / "debian"
PLATFORM: Final = FOLDER / "android" / "platform.jar"
KEY: Final = FOLDER / "android" / "throw-away.p12"
JARS: Final = ROOT / "usr" / "share" / "java"
RESOURCES: Final = ROOT / "usr" / "share" / "android-framework-res" / "framework-res.apk"
PASSWORD: Final = "throw-away"


class ToolFailed(Exception):
    """A tool has said why."""


@dataclass(frozen=True, slots=True)
class AndroidTools:
    """Runs the tools; each answers what it printed.

    Raises:
        ToolFailed: any of them, by what it printed.
    """

    java: Path

    def aapt2(self, *arguments: str) -> str:
        """Compiles and links resources, and reads an APK."""
        return self._native("aapt2", *arguments)

    def zipalign(self, *arguments: str) -> str:
        """Aligns what an APK has uncompressed."""
        return self._native("zipalign", *arguments)

    def javac(self, *arguments: str) -> str:
        """Compiles Java 8, which are the numbers of resources alone."""
        return _run([str(self.java.with_name("javac")), "--release", "8", "-Xlint:-options", *arguments])

    def apksigner(self, *arguments: str) -> str:
        """Signs an APK, and verifies one."""
        return self._jar("com.android.apksigner.ApkSignerTool", ("apksigner.jar", "apksig.jar"), *arguments)

    def dx(self, *arguments: str) -> str:
        """Writes classes as Android's machine reads them."""
        return self._jar("com.android.dx.command.Main", ("com.android.dx.jar",), "--dex", *arguments)

    def proguard(self, *arguments: str) -> str:
        """Leaves out what nothing reaches, and says what is reached and not there."""
        return self._jar("proguard.ProGuard", ("proguard.jar",), *arguments)

    def _native(self, tool: str, *arguments: str) -> str:
        libraries = [ROOT / "usr" / "lib", ROOT / "usr" / "lib" / "p7zip"]
        libraries += [*ROOT.glob("usr/lib/*-linux-gnu*"), *ROOT.glob("usr/lib/*-linux-gnu*/android")]
        libraries += ROOT.glob("lib/*-linux-gnu*")
        path = ROOT / "usr" / "lib" / "android-sdk" / "build-tools" / "debian" / tool
        return _run([str(path), *arguments], {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))})

    def _jar(self, main: str, jars: tuple[str, ...], *arguments: str) -> str:
        path = os.pathsep.join(str((JARS / jar).resolve()) for jar in jars)
        return _run([str(self.java), *JAVA_FLAGS, "-cp", path, main, *arguments])


def android_tools(tools: Toolchain) -> AndroidTools:
    """The tools, Android's classes and a key to sign with, fetched or made where they are not here.

    Raises:
        ToolchainMissing: a package that cannot be had, or no JDK.
    """
    java = Path(shutil.which(tools.java) or tools.java).resolve()
    java_8 = java.parents[1] / "lib" / "ct.sym"
    if not (java_8.exists() and java.with_name("javac").exists()):
        raise ToolchainMissing(f"{java} is of no JDK: apt-get install openjdk-17-jdk-headless")
    with locked(FOLDER / "android.lock"):
        unpack_packages(PACKAGES, ROOT)
        write_platform((JARS / "com.android.android-23.jar").resolve(), java_8, PLATFORM)
        if not KEY.exists():
            _make_key(java.with_name("keytool"))
    return AndroidTools(java)


def _make_key(keytool: Path) -> None:
    """A key that signs what nobody is to install."""
    names = ["-alias", "throw-away", "-dname", "CN=throw-away", "-storepass", PASSWORD, "-validity", "10000"]
    _run(
        [str(keytool), "-genkeypair", "-keyalg", "EC", "-keystore", str(KEY), "-storetype", "PKCS12", *names]
    )


def _run(command: list[str], env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | (env or {})
    )
    if done.returncode:
        raise ToolFailed(f"{Path(command[0]).name} {command[1]}: {done.stdout.strip()[-3000:]}")
    return done.stdout
