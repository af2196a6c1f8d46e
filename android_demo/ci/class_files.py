"""As much of the format of Java's class files as adds members to a class, or declares a new one.

What is added has no code: it is there for compilers, which ask what there is, and never for a machine.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

MAGIC: Final = 0xCAFEBABE
PUBLIC: Final = 0x0001
PROTECTED: Final = 0x0004
STATIC: Final = 0x0008
FINAL: Final = 0x0010
SUPER: Final = 0x0020
VARARGS: Final = 0x0080
NATIVE: Final = 0x0100
INTERFACE: Final = 0x0200
ABSTRACT: Final = 0x0400
JAVA_8: Final = struct.pack(">HH", 0, 52)

UTF8: Final = 1
INTEGER: Final = 3
CLASS: Final = 7
STRING: Final = 8
INVOKE_DYNAMIC: Final = 18
# Bytes after the tag of each kind of constant but UTF8; those of 5 and 6 (long, double) count twice.
CONSTANT_BYTES: Final = {
    **{3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4},
    **{19: 2, 20: 2},
}
PRIMITIVES: Final = {
    **{"void": "V", "boolean": "Z", "byte": "B", "char": "C", "short": "S", "int": "I", "long": "J"},
    **{"float": "F", "double": "D"},
}


@dataclass
class ClassFile:
    """A class, in the sections of its file; those with members can grow."""

    version: bytes
    constants: bytes
    constant_count: int  # one more than there are, as the file has it
    head: bytes  # access, names of the class and of what it extends, interfaces
    fields: list[bytes] = field(default_factory=list)
    methods: list[bytes] = field(default_factory=list)
    attributes: bytes = b"\0\0"

    @classmethod
    def read(cls, data: bytes) -> Self:
        """The sections of a file's bytes.

        Raises:
            ValueError: no class file.
        """
        if len(data) < 10 or struct.unpack_from(">I", data)[0] != MAGIC:
            raise ValueError("no class file: the first four bytes are not CAFEBABE")
        (count,) = struct.unpack_from(">H", data, 8)
        *_, (_, constant_bytes) = _constants(data[10:], count)
        end = 10 + constant_bytes
        head_end = end + 8 + 2 * struct.unpack_from(">H", data, end + 6)[0]
        fields, fields_end = _members(data, head_end)
        methods, methods_end = _members(data, fields_end)
        return cls(data[4:8], data[10:end], count, data[end:head_end], fields, methods, data[methods_end:])

    @classmethod
    def declare(cls, name: str, extends: str = "java.lang.Object", access: int = PUBLIC | SUPER) -> Self:
        """A new class without members; names as Java writes them."""
        made = cls(JAVA_8, b"", 1, b"")
        this, above = made._class(name), made._class(extends)
        made.head = struct.pack(">HHHH", access, this, above, 0)
        return made

    @property
    def is_interface(self) -> bool:
        return bool(struct.unpack_from(">H", self.head)[0] & INTERFACE)

    @property
    def is_dynamic(self) -> bool:
        """Whether anything of it is made at run time, by `invokedynamic`."""
        *places, _ = _constants(self.constants, self.constant_count)
        return any(self.constants[at] == INVOKE_DYNAMIC for _, at in places)

    def add_method(self, access: int, name: str, descriptor: str) -> None:
        """A method without code."""
        names = self._text(name), self._text(descriptor)
        self.methods.append(struct.pack(">HHHH", access, *names, 0))

    def make_generic(self, name: str, signature: str) -> None:
        """Give the method of that name a signature in the format's words, as `<T:Ljava/lang/Object;>(I)TT;`.

        Raises:
            ValueError: there is not one of that name.
        """
        found = [at for at, own in enumerate(self.methods) if self._name_of(own) == name]
        if len(found) != 1:
            raise ValueError(f"{len(found)} methods have the name {name}, expected 1")
        own = self.methods[found[0]]
        (count,) = struct.unpack_from(">H", own, 6)
        attribute = struct.pack(">HIH", self._text("Signature"), 2, self._text(signature))
        self.methods[found[0]] = own[:6] + struct.pack(">H", count + 1) + own[8:] + attribute

    def add_constant(self, name: str, value: int | str) -> None:
        """A `public static final` int or String, which compilers write into the code that names it."""
        descriptor = "I" if isinstance(value, int) else "Ljava/lang/String;"
        if isinstance(value, int):
            at = self._constant(struct.pack(">Bi", INTEGER, value))
        else:
            at = self._constant(struct.pack(">BH", STRING, self._text(value)))
        names = self._text(name), self._text(descriptor)
        attribute = struct.pack(">HIH", self._text("ConstantValue"), 2, at)
        self.fields.append(struct.pack(">HHHH", PUBLIC | STATIC | FINAL, *names, 1) + attribute)

    def write(self) -> bytes:
        """The bytes of its file."""
        parts = [struct.pack(">I", MAGIC), self.version, struct.pack(">H", self.constant_count)]
        parts += [self.constants, self.head]
        for members in (self.fields, self.methods):
            parts += [struct.pack(">H", len(members)), *members]
        return b"".join([*parts, self.attributes])

    def _name_of(self, member: bytes) -> str:
        (wanted,) = struct.unpack_from(">H", member, 2)
        at = dict(_constants(self.constants, self.constant_count))[wanted]
        (length,) = struct.unpack_from(">H", self.constants, at + 1)
        return self.constants[at + 3 : at + 3 + length].decode(errors="replace")

    def _constant(self, data: bytes) -> int:
        self.constants += data
        self.constant_count += 1
        return self.constant_count - 1

    def _text(self, text: str) -> int:
        return self._constant(struct.pack(">BH", UTF8, len(text)) + text.encode("ascii"))

    def _class(self, name: str) -> int:
        return self._constant(struct.pack(">BH", CLASS, self._text(name.replace(".", "/"))))


def descriptor(returned: str, parameters: list[str]) -> str:
    """A method's descriptor of the types that Java's source names, such as `int[]` and `java.lang.String`."""
    return f"({''.join(map(type_descriptor, parameters))}){type_descriptor(returned)}"


def type_descriptor(name: str) -> str:
    """How class files write a type.

    Raises:
        ValueError: a class without a package.
    """
    if name.endswith("[]"):
        return "[" + type_descriptor(name[:-2])
    if name in PRIMITIVES:
        return PRIMITIVES[name]
    if "." not in name:
        raise ValueError(f"a class needs its package, got {name!r}")
    return f"L{name.replace('.', '/')};"


def _constants(data: bytes, count: int) -> Iterator[tuple[int, int]]:
    """Where each constant begins; last, with the count itself, where they end."""
    at, index = 0, 1
    while index < count:
        yield index, at
        tag = data[at]
        if tag == UTF8:
            at += 3 + struct.unpack_from(">H", data, at + 1)[0]
        else:
            at += 1 + CONSTANT_BYTES[tag]
        index += 2 if tag in (5, 6) else 1
    yield count, at


def _members(data: bytes, at: int) -> tuple[list[bytes], int]:
    (count,) = struct.unpack_from(">H", data, at)
    found, at = [], at + 2
    for _ in range(count):
        end = at + 8
        for _ in range(struct.unpack_from(">H", data, at + 6)[0]):
            end += 6 + struct.unpack_from(">I", data, end + 2)[0]
        found.append(data[at:end])
        at = end
    return found, at
