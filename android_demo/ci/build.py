"""Compile and test the Kotlin client without Gradle.

    python android_demo/ci/build.py                       compile all modules, run all tests
    python android_demo/ci/build.py sdk-core              that module alone, with what it needs
    python android_demo/ci/build.py sdk-core --tests ErrorsTest
    python android_demo/ci/build.py sdk-core --class-path  compile, and print what `java -cp` takes

What did not change since the last time is not compiled anew.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modules import ANDROID_DEMO, MODULES, TEST_LIBRARIES, Module
from onnxruntime_java import fetch_onnxruntime
from toolchain import Toolchain, ToolchainMissing, locked, toolchain

BUILD: Final = ANDROID_DEMO / "build"
BY_NAME: Final = {module.name: module for module in MODULES}
# Those of the Gradle build too. Lambdas become classes: the plain Android dexer knows no invokedynamic.
FLAGS: Final = (
    *("-language-version", "1.9", "-api-version", "1.9", "-jvm-target", "1.8", "-Werror", "-no-stdlib"),
    *("-no-reflect", "-Xlambdas=class", "-Xsam-conversions=class", "-progressive"),
)
# Nothing that Android 8 lacks: of java.* only what Java 8 has. Tests run on this machine's Java alone.
MAIN_FLAGS: Final = ("-Xjdk-release=1.8",)
COMPILER: Final = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
# For a compiler that lives for seconds.
JAVA_FLAGS: Final = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class CompilationFailed(Exception):
    """The compiler has said why."""


@dataclass(frozen=True, slots=True)
class Build:
    """Compiles modules with a toolchain; each once."""

    tools: Toolchain

    def class_path(self, module: Module, *, tests: bool) -> list[Path]:
        """Compiled classes of a module and of what it needs, and their libraries."""
        sets = ("main", "test") if tests else ("main",)
        names = [*self._needed(module), module.name]
        folders = [self.compiled(BY_NAME[name], each) for name in names for each in sets]
        libraries = {library for name in names for library in BY_NAME[name].libraries}
        return folders + [self.tools.libraries[library] for library in sorted(libraries | _extra(tests))]

    def compiled(self, module: Module, source_set: str) -> Path:
        """The folder of a module's classes, compiled where anything of it changed.

        Raises:
            CompilationFailed: an error, or a warning.
        """
        target, sources = BUILD / module.name / source_set, module.sources(source_set)
        libraries = self._beside(module, source_set)
        mark, seal = target.with_suffix(".sha256"), _seal(sources, libraries, self._flags(source_set))
        if target.exists() and mark.exists() and mark.read_text() == seal:
            return target
        mark.unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        if sources:
            self._compile(sources, libraries, target, source_set)
        mark.write_text(seal)
        return target

    def _beside(self, module: Module, source_set: str) -> list[Path]:
        """What a source set is compiled against."""
        found = [
            path
            for name in self._needed(module)
            for path in self.class_path(BY_NAME[name], tests=source_set == "test")
        ]
        if source_set == "test":
            found.append(self.compiled(module, "main"))
        names = set(module.libraries) | _extra(source_set == "test")
        return list(dict.fromkeys(found + [self.tools.libraries[name] for name in sorted(names)]))

    def _flags(self, source_set: str) -> tuple[str, ...]:
        checked = source_set == "main" and self.tools.knows_older_java
        return FLAGS + MAIN_FLAGS if checked else FLAGS

    def _needed(self, module: Module) -> list[str]:
        """The modules that one needs, and those that they need."""
        deeper = [name for need in module.needs for name in self._needed(BY_NAME[need])]
        return list(dict.fromkeys([*deeper, *module.needs]))

    def _compile(self, sources: Sequence[Path], libraries: Sequence[Path], target: Path, name: str) -> None:
        print(f"compiling {target.relative_to(BUILD)}: {len(sources)} files", file=sys.stderr, flush=True)
        # Read and write of main's internals is for its own tests.
        friends = [f"-Xfriend-paths={target.with_name('main')}"] if name == "test" else []
        command = [
            self.tools.java,
            *JAVA_FLAGS,
            "-cp",
            str(self.tools.compiler),
            COMPILER,
            *self._flags(name),
        ]
        command += [*friends, f"-Xplugin={self.tools.plugin}", "-module-name", target.parent.name]
        command += ["-cp", os.pathsep.join(map(str, libraries)), "-d", str(target), *map(str, sources)]
        if subprocess.run(command).returncode:
            raise CompilationFailed(f"{target.relative_to(BUILD)} does not compile")


def _extra(tests: bool) -> set[str]:
    return set(TEST_LIBRARIES) if tests else set()


def _seal(sources: Sequence[Path], libraries: Sequence[Path], flags: Sequence[str]) -> str:
    """A digest of all that the compiler reads."""
    digest = hashlib.sha256(repr((flags, [*map(str, libraries)])).encode())
    for library in libraries:
        own = library.with_suffix(".sha256")  # of a folder of ours; jars of the toolchain are what they are
        digest.update(own.read_bytes() if own.exists() else b"")
    for source in sources:
        digest.update(f"\n{source} ".encode() + hashlib.sha256(source.read_bytes()).digest())
    return digest.hexdigest()


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
    try:
        if any("onnxruntime" in module.libraries for module in chosen):
            fetch_onnxruntime()
        build = Build(toolchain())
        if not build.tools.knows_older_java:
            print(
                "no JDK here: whether Android 8 has all of java.* that is used is not looked at",
                file=sys.stderr,
            )
        with locked(BUILD / "compiling.lock"):
            paths = [path for module in chosen for path in build.class_path(module, tests=True)]
    except (ToolchainMissing, CompilationFailed) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if options.class_path:
        print(os.pathsep.join(map(str, dict.fromkeys(paths))))
    if options.class_path or options.compile_only:
        return 0
    results = [run_tests(build, module, options.tests) for module in chosen]
    passed, failed = (sum(counts) for counts in zip(*results, strict=True))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
