"""The classes of Android that the app is compiled against: those of API 23, and what a table adds to them.

No newer android.jar is to be had without Google's own servers. So `android_members.txt` declares what our
sources use of later versions, with the level that brought it; packages that Android took over from Java 8 as
a whole are taken from what a JDK keeps for `--release 8`. The jar is for compilers alone.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from class_files import ABSTRACT, JAVA_8, NATIVE, PROTECTED, PUBLIC, STATIC, VARARGS, ClassFile, descriptor

TABLE: Final = Path(__file__).with_name("android_members.txt")
ACCESS: Final = {
    "": PUBLIC | NATIVE,
    "static": PUBLIC | STATIC | NATIVE,
    "protected": PROTECTED | NATIVE,
    "default": PUBLIC,
}
TYPE: Final = r"[\w$]+(?:\.[\w$]+)*(?:\[\])*"
METHOD: Final = re.compile(
    rf"(?:(static|default|protected) )?({TYPE}) (<init>|\w+)\(((?:{TYPE}(?:, )?)*)(\.\.\.)?\)"
)
GENERIC: Final = re.compile(r"generic (\w+) (\S+)")
CONSTANT: Final = re.compile(r"const (int|java\.lang\.String) (\w+) = (.+)")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A line of the table: what came with an API level, as `package`, `java`, `class` or a class's member."""

    level: int
    kind: str
    name: str
    rest: str


def declarations(text: str) -> Iterator[Declaration]:
    """The lines of a table.

    Raises:
        ValueError: a line that is none of those that its head describes.
    """
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if found := re.fullmatch(r"(\d+)  (package|java|class) ([\w.$]+)(?: extends ([\w.$]+))?", line):
            yield Declaration(int(found[1]), found[2], found[3], found[4] or "java.lang.Object")
        elif found := re.fullmatch(r"(\d+)  ([\w.$]+): (.+)", line):
            yield Declaration(int(found[1]), "member", found[2], found[3])
        else:
            raise ValueError(f"line {number} declares nothing: {line!r}")


def write_platform(android_jar: Path, java_8: Path, target: Path) -> None:
    """Android's classes with those of the table.

    Args:
        android_jar: of API 23.
        java_8: `lib/ct.sym` of a JDK.
        target: the jar to write; left as it is where it was made of the same.

    Raises:
        ValueError: a line of the table that does not fit what there is.
    """
    text = TABLE.read_text()
    made_of = hashlib.sha256(text.encode() + Path(__file__).read_bytes() + str(java_8).encode()).hexdigest()
    mark = target.with_suffix(".sha256")
    if target.exists() and mark.exists() and mark.read_text() == made_of:
        return
    mark.unlink(missing_ok=True)
    added = dict(
        _of_java_8(java_8, [each for each in declarations(text) if each.kind in ("package", "java")])
    )
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(android_jar) as old, zipfile.ZipFile(partial, "w") as new:
        added |= _with_members(old, text)
        for name in old.namelist():
            if name.endswith(".class") and name not in added:
                new.writestr(name, old.read(name))
        for name, data in added.items():
            new.writestr(name, data)
    partial.replace(target)
    mark.write_text(made_of)


def _of_java_8(java_8: Path, wanted: list[Declaration]) -> Iterator[tuple[str, bytes]]:
    folders = tuple(each.name.replace(".", "/") + "/" for each in wanted if each.kind == "package")
    classes = {each.name.replace(".", "/") for each in wanted if each.kind == "java"}
    with zipfile.ZipFile(java_8) as archive:
        for entry in archive.namelist():
            # Folders are named for the versions that a class is the same in: 8, 879, 89A.
            versions, _, rest = entry.partition("/java.base/")
            name = rest.removesuffix(".sig")
            if (
                "8" in versions
                and name != rest
                and (name.startswith(folders) or name.partition("$")[0] in classes)
            ):
                read = ClassFile.read(archive.read(entry))
                read.version = JAVA_8  # whatever this JDK's own is
                yield f"{name}.class", read.write()


def _with_members(old: zipfile.ZipFile, text: str) -> dict[str, bytes]:
    """The classes that the table declares or adds to."""
    changed: dict[str, ClassFile] = {}
    known = set(old.namelist())
    for each in declarations(text):
        file = each.name.replace(".", "/") + ".class"
        if each.kind == "class":
            if file in known:
                raise ValueError(f"{each.name} is of API 23 or older")
            changed[file] = ClassFile.declare(each.name, each.rest)
        elif each.kind == "member":
            if file not in changed:
                if file not in known:
                    raise ValueError(f"{each.name} is not declared: a line `class {each.name}` comes first")
                changed[file] = ClassFile.read(old.read(file))
            _add(changed[file], each)
    return {file: each.write() for file, each in changed.items()}


def _add(to: ClassFile, member: Declaration) -> None:
    if found := CONSTANT.fullmatch(member.rest):
        value = int(found[3], 0) if found[1] == "int" else found[3].strip('"')
        to.add_constant(found[2], value)
    elif found := GENERIC.fullmatch(member.rest):
        to.make_generic(found[1], found[2])
    elif found := METHOD.fullmatch(member.rest):
        access = ACCESS[found[1] or ""]
        if to.is_interface and not found[1]:
            access = PUBLIC | ABSTRACT
        parameters = found[4].split(", ") if found[4] else []
        if found[5]:
            access, parameters = access | VARARGS, [*parameters[:-1], parameters[-1] + "[]"]
        to.add_method(access, found[3], descriptor(found[2], parameters))
    else:
        raise ValueError(f"{member.name} has no such member: {member.rest!r}")
