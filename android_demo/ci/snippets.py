"""Compile the Kotlin of docs/android.md against the client, so that it cannot drift.

    python android_demo/ci/snippets.py [DOCUMENT]

Each block becomes the body of a function that sees all packages of the client, and of Android what OBJECTS
declares; lines that begin with `import` stay imports. A warning fails, as everywhere.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
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
# What apps have of Android; of each the members that the document shows.
OBJECTS: Final = """
class Context(val filesDir: java.io.File)
class BatteryManager(val isCharging: Boolean)
class ConnectivityManager(val isActiveNetworkMetered: Boolean)
"""
GIVEN: Final = """
    abstract val context: Context
    abstract val batteryManager: BatteryManager
    abstract val connectivityManager: ConnectivityManager
"""


def sources(document: str, packages: list[str]) -> Iterator[str]:
    """A Kotlin file for each block of a document, each in a package of its own."""
    for number, block in enumerate(BLOCK.findall(document)):
        lines = block.splitlines()
        own = [line for line in lines if line.startswith("import ")]
        body = [line for line in lines if not line.startswith("import ")]
        imports = ["import java.io.File", *(f"import {package}.*" for package in packages), *own]
        head = [f"package snippets.block{number}", *dict.fromkeys(imports), OBJECTS]
        shown = ["abstract class Shown {", GIVEN, "fun shown() {", *body, "}", "}"]
        yield "\n".join([*head, *shown, ""])


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
    written = list(sources(document.read_text(encoding="utf-8"), packages()))
    if not written:
        print(f"{document.name} has no block of Kotlin", file=sys.stderr)
        return 1
    folder = ANDROID_DEMO / SNIPPETS.name / "src" / "main" / "kotlin"
    try:
        fetch_onnxruntime()
        build = Build(toolchain())
        with locked(BUILD / "compiling.lock"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            for number, text in enumerate(written):
                Path(folder, f"Block{number}.kt").write_text(text, encoding="utf-8")
            build.compiled(SNIPPETS, "main")
    except (ToolchainMissing, CompilationFailed) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(f"{len(written)} of {document.name} compiled")
    return 0


if __name__ == "__main__":
    sys.exit(main())
