"""Compile the Kotlin of docs/android.md against the client, so that it cannot drift.

    python android_demo/ci/snippets.py [DOCUMENT]

The blocks become the body of a function that sees all packages of the client, and of Android what OBJECTS
declares; lines that begin with `import` stay imports. A warning fails, but for what is shown and not used.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

from build import BUILD, Build, CompilationFailed
from modules import ANDROID_DEMO, MODULES, Module
from onnxruntime_java import fetch_onnxruntime
from toolchain import ToolchainMissing, locked, toolchain

DOCUMENT: Final = ANDROID_DEMO.parent / "docs" / "android.md"
CLIENT: Final = next(module for module in MODULES if module.name == "trainer-ort")
# Its sources are written where what is built lies.
SNIPPETS: Final = Module("build/snippets", CLIENT.libraries, needs=(CLIENT.name,))
BLOCK: Final = re.compile(r"^```kotlin\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PACKAGE: Final = re.compile(r"^package (dev\.hetlora[\w.]*)$", re.MULTILINE)
SUPPRESSED: Final = '@file:Suppress("UNUSED_VARIABLE", "UNUSED_EXPRESSION", "NAME_SHADOWING")'
# What apps have of Android, and take from the demo; of each the members that the document shows.
OBJECTS: Final = """
class Context(val filesDir: java.io.File)
class BatteryManager(val isCharging: Boolean)
class ConnectivityManager(val isActiveNetworkMetered: Boolean)
object SystemClock { fun elapsedRealtime(): Long = 0 }
class AndroidSources(val context: Context) : dev.hetlora.probe.Sources by dev.hetlora.probe.LinuxSources()
"""
GIVEN: Final = """
    abstract val context: Context
    abstract val batteryManager: BatteryManager
    abstract val connectivityManager: ConnectivityManager
"""


def source(document: str, packages: list[str]) -> str:
    """A Kotlin file of all blocks of a document, each of which sees what those before it declare."""
    blocks = [block.splitlines() for block in BLOCK.findall(document)]
    own = [line for block in blocks for line in block if line.startswith("import ")]
    bodies = [[line for line in block if not line.startswith("import ")] for block in blocks]
    imports = ["import java.io.File", *(f"import {package}.*" for package in packages), *own]
    shown = [line for body in bodies for line in ("run {", *body)] + ["}"] * len(bodies)
    inside = ["abstract class Shown {", GIVEN, "fun shown() {", *shown, "}", "}"]
    return "\n".join([SUPPRESSED, "package snippets", *dict.fromkeys(imports), OBJECTS, *inside, ""])


def packages() -> list[str]:
    """The packages of the client that the document is about."""
    found = set()
    for module in MODULES:
        if module.name in (*CLIENT.needs, CLIENT.name):
            for source in module.sources("main"):
                found |= set(PACKAGE.findall(source.read_text(encoding="utf-8")))
    return sorted(found)


def main() -> int:
    document = Path(sys.argv[1]) if len(sys.argv) > 1 else DOCUMENT
    text = document.read_text(encoding="utf-8")
    count = len(BLOCK.findall(text))
    if not count:
        print(f"{document.name} has no block of Kotlin", file=sys.stderr)
        return 1
    folder = ANDROID_DEMO / SNIPPETS.name / "src" / "main" / "kotlin"
    try:
        fetch_onnxruntime()
        build = Build(toolchain())
        with locked(BUILD / "compiling.lock"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            Path(folder, "Shown.kt").write_text(source(text, packages()), encoding="utf-8")
            build.compiled(SNIPPETS, "main")
    except (ToolchainMissing, CompilationFailed) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{count} of {document.name} compiled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
