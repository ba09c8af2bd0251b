"""One shard of a build: its tar, its sidecar and the record by which a resumed build knows it."""

from __future__ import annotations

import hashlib
import io
import json
import operator
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from webdataset.writer import TarWriter

from shards import atomic, decode, index
from shards.errors import DataError
from shards.layout import Decoded, Layout, sample_digest
from shards.manifest import BUILD_FOLDER, ImageSpec
from shards.sources import Sample, Source, UnreadableImage
from shards.sources.checking import as_plain_number

_OWNER = "infogan"
_NOTE_EVERY = 0.2  # seconds between a worker's signs of life; also how soon it notices that the build was killed
# Measured on MNIST and on 64x64 photographs: zlib level 1 with run-length matches encodes 1.5 to 2 times as
# fast as Pillow's default (level 6), at the same size within 2 %.
_PNG = {"compress_level": 1, "compress_type": 3}
_SIZE, _CHECKSUM = slice(124, 135), slice(148, 156)  # of a tar's header


def _blank_header() -> bytes:
    """The header of every member, but for its name, size and checksum."""
    blank = tarfile.TarInfo()
    blank.mode, blank.uname, blank.gname = 0o444, _OWNER, _OWNER
    header = bytearray(blank.tobuf(tarfile.USTAR_FORMAT))
    header[_CHECKSUM] = b" " * 8
    return bytes(header)


_BLANK = _blank_header()


@dataclass(frozen=True)
class Task:
    split: str
    number: int
    begin: int
    end: int

    @property
    def name(self) -> str:
        return f"{self.split}/{self.number:06d}.tar"

    @property
    def record(self) -> str:
        return f"{self.split}-{self.number:06d}.json"


@dataclass
class ShardJob:
    """Makes one shard, its sidecar and its record, unless a record shows that all are there."""

    source: Source
    out: Path
    layout: Layout

    def __call__(self, task: Task, note: Callable[[Any], None]) -> None:
        if self._kept(task):
            note(task.end - task.begin)
            return
        path = self.out / task.name
        writer = ShardWriter(task.split, self.layout)
        with atomic.explained(path):
            with atomic.file(path) as stream:
                self._fill(writer, stream, task, note)
            record = writer.record(task.name)
            if record["samples"]:
                index.write(path, writer.table())
            else:
                path.unlink()  # every image of it was unreadable
            atomic.write_json(self.out / BUILD_FOLDER / task.record, record)

    def _fill(self, writer: ShardWriter, stream: IO[bytes], task: Task, note: Callable[[Any], None]) -> None:
        done, last = 0, time.monotonic()
        with writer.opened(stream):
            for i in range(task.begin, task.end):
                try:
                    writer.add(self.source.sample(task.split, i))
                except UnreadableImage as error:
                    if not self.source.skip_unreadable:
                        raise
                    writer.skipped.append(str(error))
                done += 1
                if time.monotonic() - last > _NOTE_EVERY:
                    note(done)
                    done, last = 0, time.monotonic()
        note(done)

    def _kept(self, task: Task) -> bool:
        """Whether the shard was finished before, and lies there as it was."""
        path = self.out / task.name
        try:
            record = json.loads((self.out / BUILD_FOLDER / task.record).read_text(encoding="utf-8"))
            if record["samples"] == 0:
                return not path.exists()
            with index.mapped(path) as data:
                sound = hashlib.sha256(data).hexdigest() == record["sha256"]
                return sound and np.array_equal(index.load(path), index.entries(list(index.walk(data))))
        except (FileNotFoundError, ValueError, KeyError, DataError):
            return False


class _Hashed:
    """A stream that hashes and counts what passes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream, self.state, self.size = stream, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.state.update(data)
        self.size += len(data)
        return self._stream.write(data)


class ShardWriter:
    """Writes samples into one tar as webdataset's own writer would, keeping count of offsets and digests.

    That writer opens the tar and ends it; the members' headers are made here, since it spends more time on them than
    Pillow does on a small PNG. The bytes are the same.
    """

    def __init__(self, split: str, layout: Layout) -> None:
        self._split, self._layout, self._extensions = split, layout, layout.extensions
        self._members: list[index.Member] = []
        self._digests = bytearray()
        self._last_key = -1
        self.skipped: list[str] = []

    def opened(self, stream: IO[bytes]) -> TarWriter:
        """The tar writer to enter before `add` is called."""
        self._hashed = _Hashed(stream)
        self._tar = TarWriter(self._hashed, user=_OWNER, group=_OWNER, mode=0o444, mtime=0, encoder=False)
        return self._tar

    def add(self, sample: Sample) -> None:
        """Appends one sample; its key must exceed the last one's."""
        decoded, factors = self._checked(sample)
        members = {self._layout.image.encoding: encode(decoded.image, self._layout.image)}
        if self._layout.classes:
            members["cls"] = str(decoded.label).encode("ascii")
        if self._layout.factors:
            members["json"] = factors
        tar = self._tar.tarstream
        for extension in self._extensions:
            name, body = f"{decoded.key:08d}.{extension}", members[extension]
            self._members.append(index.Member(name, tar.offset + index.BLOCK, len(body)))
            padded = index.padded(len(body))
            tar.fileobj.write(tar_header(name, len(body)) + body + bytes(padded - len(body)))
            tar.offset += index.BLOCK + padded
        self._digests += sample_digest(self._split, decoded, self._layout)

    def _checked(self, sample: Sample) -> tuple[Decoded, bytes]:
        """Holds a source to its word: shape, type, label and factors; the latter also as JSON."""
        layout = self._layout
        if not isinstance(sample, Sample):
            raise DataError(
                f"{self._split}: the source gave a {type(sample).__name__}; shards.sources.Sample is needed"
            )
        where = f"sample {sample.key!r} of {self._split}"
        key, label = _whole(sample.key, f"{where}: the source gave a key"), -1
        if key <= self._last_key:
            raise DataError(f"{where}: the source gave the key after {self._last_key}; keys must increase")
        self._last_key = key
        if not isinstance(sample.image, np.ndarray):
            kind = type(sample.image).__name__
            raise DataError(f"{where}: the source gave an image that is a {kind}; a numpy array is needed")
        if sample.image.shape != layout.image.shape or sample.image.dtype != np.uint8:
            raise DataError(
                f"{where}: the source gave an image of {sample.image.dtype} {sample.image.shape}, "
                f"it promised uint8 {layout.image.shape}"
            )
        if sample.label is not None:
            label = _whole(sample.label, f"{where}: the source gave a label")
        if not -1 <= label < max(layout.classes, 0):
            raise DataError(f"{where}: the source gave the label {label}, it has {layout.classes} classes")
        if not (sample.factors or layout.factors):
            return Decoded(key, sample.image, label, []), b""
        try:
            text = json.dumps(sample.factors or {}, default=as_plain_number).encode("ascii")
            return Decoded(key, sample.image, label, decode.factors(text, layout.factors)), text
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the source gave factors that are no numbers ({error})") from None
        except DataError as error:
            raise DataError(f"{where}: {error}") from None

    def table(self) -> NDArray[np.void]:
        """The sidecar's content."""
        return index.entries(self._members)

    def record(self, name: str) -> dict[str, Any]:
        """What the manifest and a resumed build need to know of this shard, once the tar is closed."""
        return {
            "name": name,
            "samples": len(self._digests) // 32,
            "bytes": self._hashed.size,
            "sha256": self._hashed.state.hexdigest(),
            "skipped": self.skipped,
            "digests": self._digests.hex(),
        }


def _whole(value: Any, what: str) -> int:
    """A whole number of Python's or numpy's, as Python's."""
    try:
        return operator.index(value)
    except TypeError:
        raise DataError(f"{what} that is a {type(value).__name__}; a whole number is needed") from None


def tar_header(name: str, size: int) -> bytes:
    """The 512 bytes before a member of an ASCII name of up to 100 characters and fewer than 8 GiB."""
    header = bytearray(_BLANK)
    header[: len(name)] = name.encode("ascii")
    header[_SIZE] = b"%011o" % size
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def encode(image: NDArray[np.uint8], spec: ImageSpec) -> bytes:
    """uint8 [H, W, C] -> the bytes of a `.png` or `.npy` member."""
    if spec.encoding == "npy":
        return decode.npy_header(spec) + image.tobytes()
    stream = io.BytesIO()
    Image.fromarray(image[..., 0] if spec.channels == 1 else image).save(stream, "PNG", **_PNG)
    return stream.getvalue()
