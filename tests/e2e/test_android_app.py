"""The Android app as continuous integration packs it: what it asks for, and that Android can read it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CI = ROOT / "android_demo" / "ci"
PERMISSIONS = {
    f"android.permission.{name}"
    for name in (
        *("ACCESS_NETWORK_STATE", "FOREGROUND_SERVICE", "FOREGROUND_SERVICE_DATA_SYNC", "INTERNET"),
        *("POST_NOTIFICATIONS", "RECEIVE_BOOT_COMPLETED", "WAKE_LOCK"),
    )
}
# Desktop Java has both, and Android neither; the second is younger than Java 8 too.
NOT_OF_ANDROID = {"AwtTest": "java.awt.Point(1, 2)", "ProcessTest": "java.lang.ProcessHandle.current()"}
LAMBDA = "public class Lambda { Runnable told = () -> System.out.println(1); }"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("javac") is None, reason="the app is packed with a JDK"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="the app is packed with Debian's tools"),
]


@dataclass(frozen=True)
class Packed:
    apk: Path
    app: ModuleType
    tools: ModuleType

    def aapt2(self, *arguments: str) -> str:
        told: str = self.tools.AndroidTools(Path(str(shutil.which("java"))).resolve()).aapt2(*arguments)
        return told


@pytest.fixture(scope="module")
def packed() -> Packed:
    done = subprocess.run([sys.executable, str(CI / "build.py"), "app"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(CI))
        import android_tools
        import app

    return Packed(app.APK, app, android_tools)


def test_what_the_app_asks_of_a_phone(packed: Packed) -> None:
    badging = packed.aapt2("dump", "badging", str(packed.apk)).splitlines()
    assert "sdkVersion:'26'" in badging
    assert "targetSdkVersion:'35'" in badging
    named = {line.partition("'")[2].rstrip("'") for line in badging if line.startswith("uses-permission:")}
    assert named == PERMISSIONS
    (package,) = [line for line in badging if line.startswith("package:")]
    assert "name='dev.hetlora.app'" in package
    assert any(line.startswith("launchable-activity: name='dev.hetlora.app.") for line in badging)


def test_rounds_are_a_job_and_a_service_that_says_its_type(packed: Packed) -> None:
    manifest = packed.aapt2("dump", "xmltree", "--file", "AndroidManifest.xml", str(packed.apk))
    services = manifest.split("E: service")[1:]
    jobs = [each for each in services if '"android.permission.BIND_JOB_SERVICE"' in each]
    assert len(jobs) == 1
    # dataSync is the first bit of the type.
    assert sum("foregroundServiceType(0x01010599)=0x00000001" in each for each in services) == 1
    assert "usesCleartextTraffic(0x010104ec)=true" not in manifest
    assert "allowBackup(0x01010280)=false" in manifest
    assert "debuggable(" not in manifest


def test_code_is_in_one_dex_file_and_signed(packed: Packed) -> None:
    with zipfile.ZipFile(packed.apk) as apk:
        names = apk.namelist()
        assert apk.read("classes.dex")[:8] == b"dex\n038\0"  # of Android 8
    assert [name for name in names if name.endswith(".dex")] == ["classes.dex"]
    tools = packed.tools.AndroidTools(Path(str(shutil.which("java"))).resolve())
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in tools.apksigner(
        "verify", "-v", str(packed.apk)
    )


def test_no_class_of_ours_is_made_at_run_time(packed: Packed, tmp_path: Path) -> None:
    assert not [name for name in packed.app.dynamic_classes(packed.app.REACHED) if "hetlora" in name]
    tools = packed.tools.AndroidTools(Path(str(shutil.which("java"))).resolve())
    (tmp_path / "Lambda.java").write_text(LAMBDA)
    tools.javac("-d", str(tmp_path), str(tmp_path / "Lambda.java"))
    with zipfile.ZipFile(tmp_path / "lambda.jar", "w") as jar:
        jar.write(tmp_path / "Lambda.class", "Lambda.class")
    assert packed.app.dynamic_classes(tmp_path / "lambda.jar") == ["Lambda.class"]


@pytest.mark.parametrize("name", NOT_OF_ANDROID)
def test_what_android_lacks_does_not_compile(name: str, packed: Packed, tmp_path: Path) -> None:
    import compilation
    import toolchain

    source = tmp_path / f"{name}.kt"
    source.write_text(f"val here = {NOT_OF_ANDROID[name]}\n")
    build = compilation.Build(toolchain.toolchain(), packed.tools.PLATFORM)
    command = [build.tools.java, *compilation.JAVA_FLAGS, "-cp", str(build.tools.compiler)]
    command += [compilation.COMPILER, *compilation.FLAGS, *compilation.ANDROID_FLAGS]
    libraries = [packed.tools.PLATFORM, build.tools.libraries["stdlib"]]
    command += ["-cp", ":".join(map(str, libraries)), "-d", str(tmp_path / "classes"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "unresolved reference" in done.stderr.lower()
    source.write_text("val here = java.time.Instant.now()\n")  # of Android 8
    assert subprocess.run(command, capture_output=True).returncode == 0
