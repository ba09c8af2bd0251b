"""Files by name, out of a folder, a zip or a tar: an archive is read where it lies, and never unpacked.

An archive's directory is read once; from then on a file is one `pread` at its offset, through a descriptor that is
opened for it alone. So any number of forked processes can read at once.
"""

from __future__ import annotations

import contextlib
import os
import struct
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path

from shards.errors import DataError
from shards.sources.base import UnreadableImage
from shards.sources.damage import DAMAGE, reason

_LOCAL = struct.Struct("<4s22xHH")  # a zip's header before each file: signature, ..., lengths of name and extra field
_DEAD = "it is cut off or damaged, fetch it again"
Wanted = Callable[[str], bool]


class Members(ABC):
    """The wanted files below a path.

    Attributes:
        path: the folder or the archive.
        sizes: name -> bytes, in the order of the names. Names have forward slashes, and no ./ before them.
    """

    path: Path
    sizes: dict[str, int]

    def where(self, name: str) -> str:
        """What an error calls a file."""
        return f"{self.path}: {name}"

    @abstractmethod
    def read(self, name: str) -> bytes:
        """A file's content.

        Raises:
            UnreadableImage: it is gone, or damaged.
        """


class _FolderMembers(Members):
    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path = path
        found = {}
        for parent, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            below = Path(parent).relative_to(path).as_posix()
            for name in names:
                full = name if below == "." else f"{below}/{name}"
                if wanted(full):
                    # A link to nowhere is no image; whoever has a list of them says what lacks.
                    with contextlib.suppress(OSError):
                        found[full] = (path / full).stat().st_size
        self.sizes = dict(sorted(found.items()))

    def where(self, name: str) -> str:
        return str(self.path / name)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise UnreadableImage(f"{self.where(name)} cannot be read ({error.strerror}): fetch it again") from None


class _ZipMembers(Members):
    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._end = path.stat().st_size
                listed = [info for info in archive.infolist() if wanted(info.filename)]
        except DAMAGE as error:
            raise DataError(f"{path} is no readable zip ({reason(error)}): {_DEAD}") from None
        infos: dict[str, zipfile.ZipInfo] = {}
        for info in sorted(listed, key=lambda info: info.filename):
            _refuse_second(path, info.filename, infos)
            infos[info.filename] = info
        self.sizes = {name: info.file_size for name, info in infos.items()}
        self._places = {
            name: (info.header_offset, info.compress_size, info.compress_type, info.CRC, info.flag_bits)
            for name, info in infos.items()
        }

    def read(self, name: str) -> bytes:
        offset, size, method, crc, flags = self._places[name]
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or flags & 1:
            raise UnreadableImage(f"{self.where(name)} is encrypted, or of an unusual compression: unpack the zip")
        try:
            if offset + size > self._end:
                raise EOFError
            header = _pread(self.path, offset, _LOCAL.size)
            signature, named, extra = _LOCAL.unpack(header)
            packed = _pread(self.path, offset + _LOCAL.size + named + extra, size)
            data = zlib.decompress(packed, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else packed
            if signature == b"PK\x03\x04" and zlib.crc32(data) == crc:
                return data
        except (OSError, struct.error, zlib.error, EOFError):
            pass  # all of it is the same to the user: the bytes are not those that were packed
        raise UnreadableImage(f"{self.where(name)} is damaged in the zip: fetch it again")


class _TarMembers(Members):
    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path = path
        places: dict[str, tuple[int, int]] = {}
        try:
            with tarfile.open(path, "r:") as archive:
                while (info := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # else it would keep every one
                    name = info.name.removeprefix("./")
                    if info.isreg() and wanted(name):
                        _refuse_second(path, name, places)
                        places[name] = (info.offset_data, info.size)
                end = archive.offset
        except (*DAMAGE, tarfile.TarError) as error:
            raise DataError(f"{path} is no readable tar ({reason(error)}): {_DEAD}, or unpack it") from None
        # tarfile takes a torn header for the end, without a word; a whole archive ends with a block of zeros.
        if _pread(path, end, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise DataError(f"{path} ends without the mark of a tar's end after {len(places):,} images: {_DEAD}")
        self._places = dict(sorted(places.items()))
        self.sizes = {name: size for name, (_, size) in self._places.items()}

    def read(self, name: str) -> bytes:
        offset, size = self._places[name]
        try:
            data = _pread(self.path, offset, size)
        except OSError as error:
            raise UnreadableImage(f"{self.where(name)} cannot be read ({error.strerror}): fetch it again") from None
        if len(data) != size:
            raise UnreadableImage(f"{self.where(name)} is cut off: fetch the tar again")
        return data


def open_members(path: Path, wanted: Wanted) -> Members:
    """Lists the wanted files in a folder, a `.zip` or a `.tar`.

    Raises:
        DataError: a torn or otherwise unreadable archive, or one that holds a file twice.
    """
    if path.is_dir():
        return _FolderMembers(path, wanted)
    return _ZipMembers(path, wanted) if path.suffix.lower() == ".zip" else _TarMembers(path, wanted)


def _pread(path: Path, offset: int, size: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, size, offset)
    finally:
        os.close(descriptor)


def _refuse_second(path: Path, name: str, found: Collection[str]) -> None:
    if name in found:
        raise DataError(f"{path} holds {name} twice: which of the two is meant cannot be known; pack it again")
