"""Where the members of a tar lie: a strict walk through its headers, and the `.idx` sidecar made from it.

The sidecar holds, for every member in its order, the offset of its data (little-endian u64) and its size
(u32): 12 bytes a member, mapped into memory rather than read. With it a plain tar is random-access.
"""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards import atomic
from shards.errors import DataError

BLOCK = 512
SUFFIX = ".idx"
ENTRY = np.dtype([("offset", "<u8"), ("size", "<u4")])
_END = bytes(2 * BLOCK)
_BLANK_CHECKSUM = sum(b" " * 8)
_FILE, _EXTRA = (b"0", b"\0"), (b"x", b"g", b"L", b"K")  # types of members
_RECORD = re.compile(rb"(?P<length>\d{1,9}) (?P<key>[^=]+)=")  # of a POSIX extra header


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar: its name, where its data begins and how many bytes it has."""

    name: str
    offset: int
    size: int


@contextmanager
def mapped(path: Path) -> Iterator[memoryview]:
    """The bytes of a file, mapped into memory (an empty view for an empty file)."""
    with open(path, "rb") as stream:
        if os.fstat(stream.fileno()).st_size == 0:
            yield memoryview(b"")
            return
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as region:
            view = memoryview(region)
            try:
                yield view
            finally:
                view.release()


def padded(size: int) -> int:
    """Bytes that `size` bytes of data take in a tar: the next multiple of 512."""
    return -(-size // BLOCK) * BLOCK


def walk(data: memoryview, foreign: bool = False) -> Iterator[Member]:
    """Yields the members of an uncompressed tar, trusting nothing.

    Args:
        foreign: written by another program than ours: folders are passed over, long names (GNU and POSIX) are
            read, and what stands in the padding is nobody's business.

    Raises:
        DataError: a header that fails its checksum, a member that is no regular file or reaches past the end
        of the file,
            stray bytes in the padding, a missing end-of-archive mark. The message names the member by its
            number.
    """
    position, number = 0, 0
    announced: dict[str, str] = {}  # what an extra header says of the member after it
    while True:
        header = bytes(data[position : position + BLOCK])
        if header == _END[:BLOCK]:
            break
        member, kind = _parse_header(header, position, number)
        if announced and kind not in _EXTRA:
            size = announced.get("size", str(member.size))
            member = Member(announced.get("path", member.name), member.offset, int(size) if size.isdecimal() else 0)
            announced = {}
        after = position + BLOCK + padded(member.size)
        if after > len(data):
            raise DataError(f"member {number} ({member.name}) is cut off")
        if not foreign and any(data[member.offset + member.size : after]):
            raise DataError(f"member {number} ({member.name}) is followed by stray bytes in its padding")
        if kind in _FILE:
            yield member
            number += 1
        elif foreign and kind in _EXTRA:
            announced |= _announced(kind, bytes(data[member.offset : member.offset + member.size]))
        elif not (foreign and kind == b"5"):
            raise DataError(f"member {number} ({member.name}) is not a regular file")
        position = after
    if len(data) - position < len(_END):
        raise DataError(f"the end-of-archive mark after member {number - 1} is cut off")
    if any(data[position:]):
        raise DataError(f"stray bytes follow the end-of-archive mark after member {number - 1}")


def _announced(kind: bytes, body: bytes) -> dict[str, str]:
    """The name and the size that an extra header gives to the member after it."""
    if kind == b"L":
        return {"path": body.rstrip(b"\0").decode("utf-8", "replace")}
    records, said = body, dict[str, str]()
    while kind == b"x" and (match := _RECORD.match(records)):
        length = int(match["length"])
        said[match["key"].decode("utf-8", "replace")] = records[match.end() : length - 1].decode("utf-8", "replace")
        records = records[max(length, 1) :]
    return {key: value for key, value in said.items() if key in ("path", "size")}


def _parse_header(header: bytes, position: int, number: int) -> tuple[Member, bytes]:
    """A member, and its type as the header has it."""
    if len(header) < BLOCK:
        what = "ends without an end-of-archive mark" if not header else "is cut off in a header"
        raise DataError(f"the tar {what} after {number} members")
    try:
        stated = int(header[148:156].rstrip(b"\0 "), 8)
        size = int(header[124:136].rstrip(b"\0 "), 8)
        name = header[:100].partition(b"\0")[0].decode("utf-8")
        prefix = header[345:500].partition(b"\0")[0].decode("utf-8") if header[257:263] == b"ustar\0" else ""
    except ValueError:  # also a name that is no text
        raise DataError(f"the header of member {number} is damaged") from None
    if stated != sum(header) - sum(header[148:156]) + _BLANK_CHECKSUM:
        raise DataError(f"the header of member {number} ({name}) fails its checksum")
    return Member(f"{prefix}/{name}" if prefix else name, position + BLOCK, size), header[156:157]


def entries(members: list[Member]) -> NDArray[np.void]:
    """The sidecar's content for these members: a structured array of `ENTRY`."""
    table = np.empty(len(members), ENTRY)
    table["offset"] = [member.offset for member in members]
    table["size"] = [member.size for member in members]
    return table


def build(tar: Path) -> NDArray[np.void]:
    """The sidecar's content, worked out from the tar itself. Raises `DataError` as `walk` does."""
    with mapped(tar) as data:
        return entries(list(walk(data)))


def sidecar(tar: Path) -> Path:
    """The path of a tar's sidecar."""
    return tar.with_suffix(SUFFIX)


def write(tar: Path, table: NDArray[np.void]) -> None:
    """Writes a tar's sidecar, in one step."""
    atomic.write_bytes(sidecar(tar), table.astype(ENTRY, copy=False).tobytes())


def load(tar: Path, path: Path | None = None) -> NDArray[np.void]:
    """Maps a tar's sidecar into memory: a structured array of `ENTRY`, in member order.

    Args:
        path: the sidecar; the one beside the tar by default.

    Raises:
        DataError: missing, empty, of a broken size, or with members that lie outside the tar or overlap.
    """
    path = path or sidecar(tar)
    try:
        size, limit = path.stat().st_size, tar.stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: build the data set again") from None
    if size == 0 or size % ENTRY.itemsize:
        raise DataError(f"{path} has {size} bytes, not a multiple of {ENTRY.itemsize}: build the data set again")
    table = np.memmap(path, ENTRY, "r")
    begin = table["offset"].astype(np.int64)
    order = np.argsort(begin, kind="stable")  # the members of an adopted sample lie in any order
    begin, end = begin[order], begin[order] + table["size"][order]
    if begin[0] < BLOCK or end[-1] > limit or np.any(begin[1:] < end[:-1] + BLOCK) or np.any(begin % BLOCK):
        raise DataError(f"{path} does not fit {tar.name}: build the data set again")
    return table
