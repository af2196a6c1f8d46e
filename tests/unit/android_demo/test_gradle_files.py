"""Users build the Kotlin client with Gradle, continuous integration without: both build the same."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from hetlora import __version__

ANDROID = Path(__file__).parents[3] / "android_demo"
# As Gradle publishes them: of its wrapper 9.4.1, which fetches any version, and of the version it fetches.
WRAPPER_SHA256 = "55243ef57851f12b070ad14f7f5bb8302daceeebc5bce5ece5fa6edb23e1145c"
GRADLE_8_9_SHA256 = "d725d707bfabd4dfdc958c624003b3c80accc03f7037b5122c4b1d0ef15cecab"
# What Gradle's catalogue calls the libraries of `ci/modules.py`; the standard library comes with the plugin.
ALIASES = {"serialization-json": "kotlinx.serialization.json", "bouncycastle": "bouncycastle"}
ALIASES |= {"onnxruntime": "onnxruntime.desktop"}


@pytest.fixture
def ci(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(ANDROID / "ci"))
    return {
        name: __import__(name) for name in ("modules", "compilation", "toolchain", "app", "android_tools")
    }


@pytest.fixture
def catalogue() -> dict[str, Any]:
    return tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text())


def script(name: str) -> str:
    return (ANDROID / name / "build.gradle.kts").read_text()


def test_both_have_the_same_modules(ci: dict[str, ModuleType]) -> None:
    included = re.findall(r'":([\w-]+)"', (ANDROID / "settings.gradle.kts").read_text())
    assert included == [*(module.name for module in ci["modules"].MODULES), ci["modules"].APP.name]
    for module in ci["modules"].BY_NAME.values():
        needed = re.findall(r'(?:api|implementation)\(project\(":([\w-]+)"\)\)', script(module.name))
        # A module that Gradle hands on need not be named again.
        assert set(needed) <= set(module.needs), module.name
        assert bool(needed) == bool(module.needs), module.name


def test_both_have_the_same_libraries(ci: dict[str, ModuleType]) -> None:
    for module in ci["modules"].MODULES:
        text = script(module.name)
        handed_on = script("sdk-core") if "sdk-core" in module.needs else ""
        for library, alias in ALIASES.items():
            named = f"(libs.{alias})" in text + handed_on
            assert named == (library in module.libraries), f"{library} of {module.name}"


def test_kotlin_and_its_serialization_are_of_the_same_versions(
    ci: dict[str, ModuleType], catalogue: dict[str, Any]
) -> None:
    source = (ANDROID / "ci" / "toolchain.py").read_text()
    assert re.findall(r"kotlin-stdlib-([\d.]+)\.jar", source) == [catalogue["versions"]["kotlin"]]
    assert re.findall(r"serialization-json-jvm-([\d.]+)\.jar", source) == [
        catalogue["versions"]["kotlinx-serialization"]
    ]
    plugins = catalogue["plugins"]
    assert {each["version"]["ref"] for name, each in plugins.items() if "kotlin" in name} == {"kotlin"}
    for name in ("sdk-core", "trainer-ort", "app"):
        assert "alias(libs.plugins.kotlin.serialization)" in script(name)


def test_all_clients_are_of_the_version_of_the_package() -> None:
    root = ANDROID.parent
    core = ANDROID / "sdk-core" / "src" / "main" / "kotlin" / "dev" / "hetlora"
    sources = {
        core / "Version.kt": 'SDK_VERSION = "(.+)"',
        ANDROID / "app" / "build.gradle.kts": 'versionName = "(.+)"',
        root / "edge_sdk" / "web" / "src" / "session" / "visitor.ts": 'SDK_VERSION = "(.+)"',
        root / "edge_sdk" / "web" / "package.json": '^  "version": "(.+)"',
        root / "pyproject.toml": '^version = "(.+)"',
    }
    for path, pattern in sources.items():
        assert re.findall(pattern, path.read_text(), re.MULTILINE) == [__version__], path.name


def test_both_compile_with_the_same_flags(ci: dict[str, ModuleType]) -> None:
    flags = ci["compilation"].FLAGS
    root = (ANDROID / "build.gradle.kts").read_text()
    language = flags[flags.index("-language-version") + 1].replace(".", "_")
    interface = flags[flags.index("-api-version") + 1].replace(".", "_")
    target = flags[flags.index("-jvm-target") + 1].replace(".", "_")
    assert f"languageVersion.set(KotlinVersion.KOTLIN_{language})" in root
    assert f"apiVersion.set(KotlinVersion.KOTLIN_{interface})" in root
    assert f"jvmTarget.set(JvmTarget.JVM_{target})" in root
    assert ("-Werror" in flags) == ('allWarningsAsErrors.set(project.name != "app")' in root)
    assert ("-progressive" in flags) == ("progressiveMode.set(true)" in root)
    assert re.findall(r'"(-X[\w=-]+)"', root) == [flag for flag in flags if flag.startswith("-X")]
    for module in ci["modules"].MODULES:
        text = script(module.name)
        assert re.findall(r'"(-X[\w=.-]+)"', text) == list(ci["compilation"].MAIN_FLAGS), module.name
        assert f"sourceCompatibility = JavaVersion.VERSION_{target}" in text
        assert f"targetCompatibility = JavaVersion.VERSION_{target}" in text


def test_tests_are_told_the_same(ci: dict[str, ModuleType]) -> None:
    for module in ci["modules"].MODULES:
        text = script(module.name)
        named = re.findall(r'systemProperty\("([\w.]+)"', text)
        # Where ONNX Runtime's native library lies: the package that Gradle takes has it inside.
        assert set(named) == set(module.test_properties) - {"onnxruntime.native.path"}, module.name
        opened = re.findall(r'jvmArgs\("([\w-]+)", "([^"]+)"\)', text)
        assert [flag for pair in opened for flag in pair] == list(module.java_flags), module.name


def test_what_gradle_says_of_the_app_is_what_is_packed(ci: dict[str, ModuleType]) -> None:
    settings = ci["app"].AppSettings.read()
    assert (settings.min_sdk, settings.target_sdk) == ("26", "35")
    text = script("app")
    assert f"compileSdk = {settings.target_sdk}" in text
    assert f'applicationId = "{settings.namespace}"' in text
    assert '"proguard-rules.pro"' in text
    assert ci["app"].RULES == ANDROID / "app" / "proguard-rules.pro"


def test_the_app_brings_the_build_for_phones_and_tests_that_for_desktops(catalogue: dict[str, Any]) -> None:
    libraries = catalogue["libraries"]
    assert {libraries[f"onnxruntime-{where}"]["version"]["ref"] for where in ("android", "desktop")} == {
        "onnxruntime"
    }
    assert "implementation(libs.onnxruntime.android)" in script("app")
    assert "compileOnly(libs.onnxruntime.desktop)" in script("trainer-ort")
    assert "testImplementation(libs.onnxruntime.desktop)" in script("trainer-ort")


def test_gradle_is_the_one_that_was_published() -> None:
    properties = (ANDROID / "gradle" / "wrapper" / "gradle-wrapper.properties").read_text().splitlines()
    told = dict(line.split("=", 1) for line in properties)
    assert told["distributionUrl"].endswith("/gradle-8.9-bin.zip")
    assert told["distributionSha256Sum"] == GRADLE_8_9_SHA256
    wrapper = ANDROID / "gradle" / "wrapper" / "gradle-wrapper.jar"
    assert hashlib.sha256(wrapper.read_bytes()).hexdigest() == WRAPPER_SHA256
