"""Members that Android got after API 23 are declared in a table; compilers read them in class files."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).parents[3] / "android_demo" / "ci"
TABLE = """
# of a class that is there, of one that is not, and of Java 8's
24  package java.util.function
26  java java.util.Base64
26  class android.app.Channel extends android.app.Old
26  android.app.Channel: void <init>(java.lang.String, int[])
29  android.app.Old: const int TYPE = -7
29  android.app.Old: const java.lang.String NAME = "data"
29  android.app.Old: static java.lang.String[] open(java.nio.file.Path, android.app.Old$Way...)
35  android.app.Old: protected boolean onTimeout(long, double)
24  android.app.Told: default int length()
26  android.app.Old: generic before <T:Ljava/lang/Number;>()V
"""


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(CI))
    import android_platform

    return android_platform


@pytest.fixture
def made(platform: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from class_files import ABSTRACT, INTERFACE, PUBLIC, ClassFile

    old = ClassFile.declare("android.app.Old")
    old.add_method(PUBLIC, "before", "()V")
    told = ClassFile.declare("android.app.Told", access=PUBLIC | INTERFACE | ABSTRACT)
    with zipfile.ZipFile(tmp_path / "android.jar", "w") as jar:
        jar.writestr("android/app/Old.class", old.write())
        jar.writestr("android/app/Told.class", told.write())
    java_8 = ClassFile.declare("any")
    java_8.version = b"\0\0\0\x3d"  # 61, as of a JDK 17
    with zipfile.ZipFile(tmp_path / "ct.sym", "w") as kept:
        for name in (
            *("8/java.base/java/util/function/", "8/java.base/java/util/function/Function.sig"),
            *("879A/java.base/java/util/Base64$Encoder.sig", "8/java.base/java/util/Base64Url.sig"),
            "9A/java.base/java/util/function/Newer.sig",
        ):
            kept.writestr(name, b"" if name.endswith("/") else java_8.write())
    (tmp_path / "table.txt").write_text(TABLE)
    monkeypatch.setattr(platform, "TABLE", tmp_path / "table.txt")
    platform.write_platform(tmp_path / "android.jar", tmp_path / "ct.sym", tmp_path / "platform.jar")
    return tmp_path / "platform.jar"


def test_of_java_8_only_what_is_named_is_taken(made: Path) -> None:
    with zipfile.ZipFile(made) as jar:
        assert sorted(jar.namelist()) == [
            *("android/app/Channel.class", "android/app/Old.class", "android/app/Told.class"),
            *("java/util/Base64$Encoder.class", "java/util/function/Function.class"),
        ]
        assert jar.read("java/util/function/Function.class")[4:8] == b"\0\0\0\x34"  # 52: Java 8


@pytest.mark.skipif(shutil.which("javap") is None, reason="a JDK reads class files")
def test_a_jdk_reads_what_the_table_declares(made: Path) -> None:
    def members(name: str) -> set[str]:
        command = ["javap", "-protected", "-constants", "-cp", str(made), name]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return {line.strip() for line in told.splitlines() if line.startswith(("public", "  "))}

    assert members("android.app.Old") == {
        "public class android.app.Old {",
        "public <T extends java.lang.Number> void before();",
        "public static final int TYPE = -7;",
        'public static final java.lang.String NAME = "data";',
        "public static native java.lang.String[] open(java.nio.file.Path, android.app.Old$Way...);",
        "protected native boolean onTimeout(long, double);",
    }
    assert members("android.app.Channel") == {
        "public class android.app.Channel extends android.app.Old {",
        "public native android.app.Channel(java.lang.String, int[]);",
    }
    assert "public default int length();" in members("android.app.Told")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("26 class android.app.New", "line 1 declares nothing"),
        ("26  class android.app.Old", "of API 23 or older"),
        ("26  android.app.Missing: void run()", "comes first"),
        ("26  android.app.Old: void run(String)", "needs its package"),
        ("26  android.app.Old: run()", "no such member"),
        ("26  android.app.Old: generic run ()V", "0 methods have the name run"),
    ],
)
def test_a_line_that_fits_nothing_is_named(
    line: str, said: str, made: Path, platform: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "table.txt").write_text(line + "\n")
    with pytest.raises(ValueError, match=said):
        platform.write_platform(tmp_path / "android.jar", tmp_path / "ct.sym", tmp_path / "other.jar")
    assert not (tmp_path / "other.jar").exists()


def test_the_table_in_use_declares_each_thing_once_and_nothing_past_compile_sdk(platform: ModuleType) -> None:
    found = list(platform.declarations(platform.TABLE.read_text()))
    assert found
    assert {each.level for each in found} <= set(range(24, 36))
    assert len({(each.name, each.rest) for each in found}) == len(found)
