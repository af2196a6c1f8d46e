"""The modules of the Kotlin client that run on any Java, in the order in which they are compiled."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ANDROID_DEMO: Final = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Module:
    """A folder with `src/main/kotlin` and `src/test/kotlin`.

    `needs` are modules before it, whose test classes its tests see too; `libraries` are names of
    `toolchain.Toolchain.libraries`.
    """

    name: str
    libraries: tuple[str, ...]
    needs: tuple[str, ...] = ()
    test_properties: dict[str, str] = field(default_factory=dict)
    java_flags: tuple[str, ...] = ()  # of its tests

    def sources(self, source_set: str) -> list[Path]:
        """The Kotlin files of `main` or `test`, in a fixed order."""
        return sorted((ANDROID_DEMO / self.name / "src" / source_set / "kotlin").rglob("*.kt"))


KOTLIN: Final = ("stdlib", "annotations", "serialization-core", "serialization-json")
TEST_LIBRARIES: Final = ("junit", "hamcrest")
CONTRACT: Final = {"hetlora.contract": str(ANDROID_DEMO.parent / "tests" / "contract")}

# Of desktop Java: its HttpURLConnection has no PATCH in its list of methods, that of Android has.
OPEN_NET: Final = ("--add-opens", "java.base/java.net=ALL-UNNAMED")

ONNXRUNTIME: Final = {
    "onnxruntime.native.path": str(ANDROID_DEMO / ".toolchain" / "onnxruntime" / "upstream")
}

MODULES: Final = (
    Module("sdk-core", (*KOTLIN, "bouncycastle"), test_properties=CONTRACT, java_flags=OPEN_NET),
    Module(
        "trainer-ort",
        (*KOTLIN, "bouncycastle", "onnxruntime"),
        needs=("sdk-core",),
        test_properties=CONTRACT | ONNXRUNTIME,
    ),
)
# Android's own classes are all it needs besides; it is compiled against them alone, and has no tests here.
APP: Final = Module("app", KOTLIN, needs=("sdk-core", "trainer-ort"))
BY_NAME: Final = {module.name: module for module in (*MODULES, APP)}
