"""The Android app, compiled and packed without Gradle.

    sources -> classes that Android has -> what is reached -> dex -> with resources -> aligned -> signed

All modules are compiled against Android's classes, which shows that they use nothing of `java.*` that
Android lacks. The APK shows that code and resources go together. It is not what to install: ONNX Runtime is
not in it, as the package that has it for Android comes from where continuous integration cannot go.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from android_tools import KEY, PASSWORD, PLATFORM, RESOURCES, AndroidTools, ToolFailed
from class_files import ClassFile
from compilation import BUILD, Build
from modules import ANDROID_DEMO, APP, BY_NAME, MODULES
from toolchain import Toolchain

SOURCES: Final = ANDROID_DEMO / "app" / "src" / "main"
RULES: Final = ANDROID_DEMO / "app" / "proguard-rules.pro"
FOLDER: Final = BUILD / "app"
REACHED: Final = FOLDER / "reached.jar"
APK: Final = FOLDER / "hetlora-demo.apk"
# What R8 takes of each library itself. Of a library our rules say what it may miss.
RULES_IN_JAR: Final = re.compile(r"META-INF/proguard/[\w-]+\.pro")
# ONNX Runtime is compiled against, and not packed: on Android its classes come with its native library.
NOT_PACKED: Final = ("onnxruntime",)


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What Gradle's file of the app says of it."""

    namespace: str
    min_sdk: str
    target_sdk: str
    version_code: str
    version_name: str

    @classmethod
    def read(cls) -> Self:
        """Those of `app/build.gradle.kts`.

        Raises:
            ToolFailed: one of them is not there.
        """
        text = (ANDROID_DEMO / "app" / "build.gradle.kts").read_text()
        names = ("namespace", "minSdk", "targetSdk", "versionCode", "versionName")
        found = {name: re.search(rf'^ *{name} = "?([\w.]+)"?$', text, re.MULTILINE) for name in names}
        missing = [name for name, value in found.items() if value is None]
        if missing:
            raise ToolFailed(f"app/build.gradle.kts does not say {', '.join(missing)}")
        return cls(*(value[1] for value in found.values() if value))


def build_app(tools: Toolchain, android: AndroidTools) -> Path:
    """Compile, pack and verify the app; the APK's path.

    Raises:
        CompilationFailed: the sources do not compile against Android's classes.
        ToolFailed: any later step.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    resources = FOLDER / "resources.apk"
    _link_resources(android, AppSettings.read(), resources)
    build = Build(tools, PLATFORM, {APP.name: _numbers(android)})
    classes = [build.compiled(BY_NAME[name], "main") for name in (*(each.name for each in MODULES), APP.name)]
    _shrink(android, tools, classes)
    if own := [name for name in dynamic_classes(REACHED) if name.startswith("dev/hetlora/")]:
        raise ToolFailed(
            f"invokedynamic in {', '.join(own)}: the compiler's flags are to write lambdas as classes"
        )
    print(f"packing {APK.relative_to(BUILD)}", file=sys.stderr, flush=True)
    android.dx(
        f"--min-sdk-version={AppSettings.read().min_sdk}",
        f"--output={FOLDER / 'classes.dex'}",
        str(REACHED),
    )
    _pack(android, resources)
    return APK


def dynamic_classes(jar: Path) -> list[str]:
    """Which classes of a jar have `invokedynamic`, as lambdas of Java and none of ours have.

    Android has nothing to make them with. D8 writes them out as classes, dx does not: those of libraries stay
    in what is packed here, which nobody runs.
    """
    with zipfile.ZipFile(jar) as archive:
        names = [name for name in archive.namelist() if name.endswith(".class")]
        return [name for name in names if ClassFile.read(archive.read(name)).is_dynamic]


def _link_resources(android: AndroidTools, settings: AppSettings, target: Path) -> None:
    """Resources and manifest, the class R, and what the manifest names, for the shrinker."""
    manifest = FOLDER / "AndroidManifest.xml"
    text = (SOURCES / "AndroidManifest.xml").read_text()
    # Gradle has the package's name, and the tool wants it in the manifest.
    manifest.write_text(text.replace("<manifest ", f'<manifest package="{settings.namespace}" ', 1))
    compiled, numbers = FOLDER / "resources.zip", FOLDER / "numbers"
    shutil.rmtree(numbers, ignore_errors=True)
    android.aapt2("compile", "--dir", str(SOURCES / "res"), "-o", str(compiled))
    versions = ["--min-sdk-version", settings.min_sdk, "--target-sdk-version", settings.target_sdk]
    versions += ["--version-code", settings.version_code, "--version-name", settings.version_name]
    made = ["--java", str(numbers), "--proguard", str(FOLDER / "manifest.pro"), "-o", str(target)]
    android.aapt2("link", "-I", str(RESOURCES), "--manifest", str(manifest), *versions, *made, str(compiled))


def _numbers(android: AndroidTools) -> Path:
    """The compiled class R; with a digest beside it, as every folder that things are compiled against has."""
    (source,) = (FOLDER / "numbers").rglob("R.java")
    target, mark = FOLDER / "R", FOLDER / "R.sha256"
    text = source.read_text()
    if not mark.exists() or mark.read_text() != text:
        mark.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        android.javac("-d", str(target), str(source))
        mark.write_text(text)
    return target


def _shrink(android: AndroidTools, tools: Toolchain, classes: list[Path]) -> None:
    """Leave out what the app does not reach: BouncyCastle has more methods than one dex file takes.

    Raises:
        ToolFailed: our own code names something that neither Android nor a library has.
    """
    names = sorted({name for module in (*MODULES, APP) for name in module.libraries})
    packed = [tools.libraries[name] for name in names if name not in NOT_PACKED]
    beside = [PLATFORM, *(tools.libraries[name] for name in NOT_PACKED)]
    rules = FOLDER / "libraries.pro"
    rules.write_text("\n".join(text for jar in packed for text in _rules_of(jar)))
    only_classes = "(!META-INF/**,!module-info.class,**.class)"
    jars = [f"{path}{only_classes}" for path in (*classes, FOLDER / "R", *packed)]
    told = android.proguard(
        *("-injars", os.pathsep.join(jars), "-libraryjars", os.pathsep.join(map(str, beside))),
        *("-outjars", str(REACHED), "-ignorewarnings", "-dontnote", "-dontoptimize"),
        *("-include", str(RULES), "-include", str(rules), "-include", str(FOLDER / "manifest.pro")),
    )
    # Libraries name much that is only reached elsewhere; ours may not.
    if missing := re.findall(r"^Warning: (dev\.hetlora\..*)$", told, re.MULTILINE):
        raise ToolFailed("not in Android's classes:\n" + "\n".join(dict.fromkeys(missing)))


def _rules_of(jar: Path) -> list[str]:
    with zipfile.ZipFile(jar) as archive:
        return [archive.read(name).decode() for name in archive.namelist() if RULES_IN_JAR.fullmatch(name)]


def _pack(android: AndroidTools, resources: Path) -> None:
    unaligned, partial = FOLDER / "unaligned.apk", FOLDER / "partial.apk"
    shutil.copyfile(resources, unaligned)
    with zipfile.ZipFile(unaligned, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.write(FOLDER / "classes.dex", "classes.dex")
    android.zipalign("-f", "-p", "4", str(unaligned), str(partial))
    signing = ["--ks", str(KEY), "--ks-pass", f"pass:{PASSWORD}", "--v4-signing-enabled", "false"]
    android.apksigner("sign", *signing, str(partial))
    android.apksigner("verify", "--Werr", str(partial))
    partial.replace(APK)
