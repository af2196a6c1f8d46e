"""Compiles modules of the Kotlin client, by source set, where anything of them changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from modules import ANDROID_DEMO, BY_NAME, TEST_LIBRARIES, Module
from toolchain import Toolchain

BUILD: Final = ANDROID_DEMO / "build"
# Those of the Gradle build too. Lambdas become classes: the plain Android dexer knows no invokedynamic.
FLAGS: Final = (
    *("-language-version", "1.9", "-api-version", "1.9", "-jvm-target", "1.8", "-Werror", "-no-stdlib"),
    *("-no-reflect", "-Xlambdas=class", "-Xsam-conversions=class", "-progressive"),
)
# Nothing that Android 8 lacks: of java.* only what Java 8 has. Tests run on this machine's Java alone.
MAIN_FLAGS: Final = ("-Xjdk-release=1.8",)
# Android's classes alone, java.* too.
ANDROID_FLAGS: Final = ("-no-jdk",)
COMPILER: Final = "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"
# For a compiler that lives for seconds.
JAVA_FLAGS: Final = ("-Xmx1g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class CompilationFailed(Exception):
    """The compiler has said why."""


@dataclass(frozen=True, slots=True)
class Build:
    """Compiles modules with a toolchain; each once.

    `android`: Android's classes, which stand before all libraries; without, code is compiled for this machine's
    Java. `generated`: classes of one module alone that no source of it declares, by its name.
    """

    tools: Toolchain
    android: Path | None = None
    generated: Mapping[str, Path] = field(default_factory=dict)

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
        target, sources = self._folder / module.name / source_set, module.sources(source_set)
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

    @property
    def _folder(self) -> Path:
        return BUILD / "android" if self.android else BUILD

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
        libraries = [self.tools.libraries[name] for name in sorted(names)]
        first = [self.android, self.generated.get(module.name)]
        return list(dict.fromkeys([*filter(None, first), *found, *libraries]))

    def _flags(self, source_set: str) -> tuple[str, ...]:
        if self.android:
            return FLAGS + ANDROID_FLAGS
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
