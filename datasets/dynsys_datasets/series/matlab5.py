"""The variables of MATLAB files of version 4 to 7, read by our own few lines: scipy's reader crashes the process on damaged files.

    version 5 to 7   128 bytes of header, then elements (type, bytes, data); a matrix element holds flags, dims, name, numbers
    version 4        per variable five int32 (type, rows, columns, imaginary, length of name), the name, the numbers

Source: MathWorks, "MAT-File Format" (2023). Only real numeric arrays are read; cells, structs, sparse ones are listed.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
CLASSES = ("cell", "struct", "object", "char", "sparse", "double", "single", *INTEGERS, "function", "opaque")
NO_NUMBERS = ("cell", "struct", "object", "char", "sparse", "function", "opaque")
STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
MATRIX, COMPRESSED = 14, 15
COMPLEX, LOGICAL = 0x0800, 0x0200
VERSION_4 = ("f8", "f4", "i4", "i2", "u2", "u1")
# enough of a compressed variable for flags, dimensions and name
HEAD_BYTES = 4096


@dataclass(frozen=True)
class Variable:
    """One variable: its class in MATLAB's words ("complex", if so), its shape, and how to read it."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]


def variables(data: bytes) -> list[Variable]:
    """All named variables of a file; raises nearly anything (struct.error, zlib.error, ValueError, ...) if it is damaged."""
    if 0 in data[:4]:
        return list(_version_4(data))
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        raise ValueError("the header of 128 bytes has no byte order mark")
    return [found for found in _version_5(data, order) if found.name]


def _version_5(data: bytes, order: str) -> Iterator[Variable]:
    position = 128
    while position + 8 <= len(data):
        kind, body, after = _element(data, position, order, "variable")
        if kind == COMPRESSED:
            yield _variable(body, order, compressed=True)
        elif kind == MATRIX:
            yield _variable(body, order, compressed=False)
        else:
            raise ValueError(f"an element of type {kind} at byte {position}, where a variable was expected")
        position = after


def _element(data: bytes, position: int, order: str, what: str, whole: bool = True) -> tuple[int, bytes, int]:
    """(type, content, position of the next element); ValueError if it ends beyond the data."""
    kind, size = struct.unpack_from(f"{order}II", data, position)
    if kind >> 16:
        # the small form: size and type share the first four bytes, at most four bytes of content follow
        kind, size, start, after = kind & 0xFFFF, kind >> 16, position + 4, position + 8
    else:
        start = position + 8
        after = start + size + (0 if kind == COMPRESSED else -size % 8)
    if whole and start + size > len(data):
        raise ValueError(f"the {what} at byte {position} should have {size} bytes, but {len(data) - start} follow")
    return kind, data[start : start + size], after


def _variable(body: bytes, order: str, compressed: bool) -> Variable:
    """Flags, dimensions and name of a matrix element; the numbers are read later."""
    head = _inflated(body, order, HEAD_BYTES) if compressed else body
    _, flags, position = _element(head, 0, order, "flags")
    _, dims, position = _element(head, position, order, "dimensions")
    _, name, position = _element(head, position, order, "name")
    bits = struct.unpack_from(f"{order}I", flags)[0]
    number = bits & 0xFF
    class_name = CLASSES[number - 1] if 1 <= number <= len(CLASSES) else f"class {number}"
    shape = tuple(int(n) for n in np.frombuffer(dims, f"{order}i4"))
    if any(n < 0 for n in shape):
        raise ValueError(f"the dimensions are {shape}")
    called = "complex" if bits & COMPLEX else "logical" if bits & LOGICAL else class_name
    called = class_name if class_name in NO_NUMBERS else called

    def read() -> np.ndarray:
        content = _inflated(body, order) if compressed else body
        kind, numbers, _ = _element(content, position, order, "content")
        return np.frombuffer(numbers, f"{order}{STORED[kind]}").reshape(shape, order="F")

    return Variable(name.decode("latin-1"), called, shape, read)


def _inflated(body: bytes, order: str, limit: int = 0) -> bytes:
    """The content of the matrix element that was compressed, or its first bytes."""
    content = zlib.decompressobj().decompress(body, limit)
    kind, matrix, _ = _element(content, 0, order, "compressed variable", whole=not limit)
    if kind != MATRIX:
        raise ValueError(f"an element of type {kind} was compressed, where a variable was expected")
    return matrix


def _version_4(data: bytes) -> Iterator[Variable]:
    position = 0
    while position < len(data):
        little = struct.unpack_from("<i", data, position)[0]
        order = "<" if 0 <= little < 5000 else ">"
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5i", data, position)
        thousands, rest = divmod(kind, 1000)
        precision, text = divmod(rest, 10)
        if thousands not in (0, 1) or precision >= len(VERSION_4) or text > 2 or min(rows, columns, length) < 0:
            raise ValueError(f"no variable at byte {position}")
        dtype = np.dtype(f"{order}{VERSION_4[precision]}")
        start = position + 20 + length
        size = rows * columns * dtype.itemsize
        if start + size * (2 if imaginary else 1) > len(data):
            raise ValueError(f"the variable at byte {position} should have {size} bytes, but {len(data) - start} follow")
        name = data[position + 20 : start].rstrip(b"\0").decode("latin-1")
        called = "complex" if imaginary else ("double", "char", "sparse")[text]
        numbers = np.frombuffer(data, dtype, rows * columns, start).reshape((rows, columns), order="F")
        yield Variable(name, called, (rows, columns), lambda numbers=numbers: numbers)
        position = start + size * (2 if imaginary else 1)
