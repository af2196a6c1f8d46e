"""Compile and test the Kotlin client, and pack the Android app, without Gradle.

    python android_demo/ci/build.py                       compile all modules, run all tests, pack the app
    python android_demo/ci/build.py sdk-core              that module alone, with what it needs
    python android_demo/ci/build.py sdk-core --tests ErrorsTest
    python android_demo/ci/build.py sdk-core --class-path  compile, and print what `java -cp` takes
    python android_demo/ci/build.py app                   compile all for Android; build/app/hetlora-demo.apk

What did not change since the last time is not compiled anew.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

from android_tools import ToolFailed, android_tools
from app import build_app
from compilation import BUILD, JAVA_FLAGS, Build, CompilationFailed
from modules import ANDROID_DEMO, APP, BY_NAME, MODULES, Module
from onnxruntime_java import fetch_onnxruntime
from toolchain import ToolchainMissing, locked, toolchain


def test_classes(module: Module) -> Iterator[str]:
    """The classes of a module's tests: those of files named `...Test.kt`, one in each."""
    root = ANDROID_DEMO / module.name / "src" / "test" / "kotlin"
    for source in module.sources("test"):
        if source.stem.endswith("Test"):
            yield ".".join(source.relative_to(root).with_suffix("").parts)


def run_tests(build: Build, module: Module, wanted: Sequence[str]) -> tuple[int, int]:
    """How many tests of a module passed and failed; JUnit says which."""
    classes = [name for name in test_classes(module) if not wanted or name.rpartition(".")[2] in wanted]
    if not classes:
        return 0, 0
    path = os.pathsep.join(map(str, build.class_path(module, tests=True)))
    properties = [f"-D{name}={value}" for name, value in module.test_properties.items()]
    command = [
        build.tools.java,
        *JAVA_FLAGS,
        *module.java_flags,
        *properties,
        "-cp",
        path,
        "org.junit.runner.JUnitCore",
        *classes,
    ]
    print(f"testing {module.name}", flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if found := re.search(r"^OK \((\d+) tests?\)$", done.stdout, re.MULTILINE):
        return int(found[1]), 0
    found = re.search(r"^Tests run: (\d+),  Failures: (\d+)$", done.stdout, re.MULTILINE)
    if found is None:  # Java itself ended
        return 0, len(classes)
    return int(found[1]) - int(found[2]), int(found[2])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("module", nargs="*", choices=[[], *BY_NAME], help="all of them without a name")
    parser.add_argument("--tests", nargs="+", default=[], metavar="CLASS", help="these test classes alone")
    parser.add_argument("--compile-only", action="store_true")
    parser.add_argument("--class-path", action="store_true", help="print it, tests included")
    options = parser.parse_args()
    chosen = [module for module in MODULES if not options.module or module.name in options.module]
    packs = not (options.tests or options.class_path) and (not options.module or APP.name in options.module)
    try:
        if packs or any("onnxruntime" in module.libraries for module in chosen):
            fetch_onnxruntime()
        build = Build(toolchain())
        if not build.tools.knows_older_java:
            print(
                "no JDK here: whether Android 8 has all of java.* that is used is not looked at",
                file=sys.stderr,
            )
        with locked(BUILD / "compiling.lock"):
            paths = [path for module in chosen for path in build.class_path(module, tests=True)]
        if packs:
            # In folders of its own: who compiles for this machine's Java need not wait for it.
            with locked(BUILD / "packing.lock"):
                _pack(build, asked=APP.name in options.module)
    except (ToolchainMissing, CompilationFailed, ToolFailed) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if options.class_path:
        print(os.pathsep.join(map(str, dict.fromkeys(paths))))
    if options.class_path or options.compile_only or not chosen:
        return 0
    results = [run_tests(build, module, options.tests) for module in chosen]
    passed, failed = (sum(counts) for counts in zip(*results, strict=True))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def _pack(build: Build, asked: bool) -> None:
    """Pack the app. Who asked for all does without where no tools can be had for it."""
    try:
        android = android_tools(build.tools)
    except ToolchainMissing as error:
        if asked:
            raise
        print(f"the app is not compiled and not packed: {error}", file=sys.stderr)
        return
    apk = build_app(build.tools, android)
    print(f"{apk}: {apk.stat().st_size} bytes")


if __name__ == "__main__":
    sys.exit(main())
