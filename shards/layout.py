"""How a data set's samples lie in its tars, and how one is read back.

Every sample of a data set has the same members, in the order of their extensions: `.cls` where the set has
classes, `.json` where it has factors, and the image. So with n of them, sample i of a shard is rows
i * n to (i + 1) * n of its sidecar.

The tars of an adopted set hold whatever they hold, in any order: their sidecars list only the members that are read,
sample by sample in the same order of extensions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards import decode, index
from shards.errors import DataError
from shards.index import BLOCK, Member
from shards.manifest import Adopted, ImageSpec, Manifest

_compact = json.JSONEncoder(separators=(",", ":"))


@dataclass(frozen=True)
class Decoded:
    """One sample: image (uint8 [H, W, C]), label (-1 without one), factors in the manifest's order.

    `key`: its number; in an adopted set its name, where it was asked for.
    """

    key: int | str
    image: NDArray[np.uint8]
    label: int
    factors: list[float]


@dataclass(frozen=True)
class Layout:
    """The members of every sample of a data set."""

    image: ImageSpec
    classes: int
    factors: dict[str, dict[str, Any]]
    adopted: Adopted | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Layout:
        return cls(manifest.image, len(manifest.classes), manifest.factors, manifest.adopted)

    @property
    def extensions(self) -> tuple[str, ...]:
        """The extensions of a sample's members, in their order in the tar and its sidecar."""
        if self.adopted is not None:
            return tuple(sorted(filter(None, (self.adopted.image, self.adopted.label, self.adopted.factors))))
        present = [self.image.encoding]
        present += ["cls"] if self.classes else []
        present += ["json"] if self.factors else []
        return tuple(sorted(present))

    def key(self, name: str) -> str:
        """The key in a member's name."""
        return name.partition(".")[0] if self.adopted is None else decode.split_adopted(name)[0]

    def walk(self, data: memoryview) -> list[Member]:
        """The members of a tar that its sidecar lists, in the sidecar's order.

        Raises:
            DataError: as `index.walk` does; in an adopted set also for a member missing, doubled or forbidden.
        """
        if self.adopted is None:
            return list(index.walk(data))
        wanted = self.extensions
        samples: dict[str, dict[str, Member]] = {}
        for key, extension, member in adopted_members(index.walk(data, foreign=True)):
            if extension not in wanted:
                continue
            if extension in samples.setdefault(key, {}):
                raise DataError(f"member {member.name}: the key occurs twice")
            samples[key][extension] = member
        for key, found in samples.items():
            for extension in wanted:
                if extension not in found:
                    raise DataError(f"sample {key} has no .{extension} member")
        return [found[extension] for found in samples.values() for extension in wanted]

    def faults(self, members: list[Member]) -> Iterator[tuple[str, str]]:
        """Yields (member, what is wrong) for each that is forbidden, missing, doubled or out of place."""
        if self.adopted is None:  # else `walk` has seen to it
            yield from self._faults(members)

    def _faults(self, members: list[Member]) -> Iterator[tuple[str, str]]:
        wanted = self.extensions
        samples: dict[str, list[str]] = {}
        previous, last = "", None
        for member in members:
            try:
                key, extension = decode.split_name(member.name)
            except DataError as error:
                yield member.name, str(error)
                continue
            if not (key.isdecimal() and len(key) >= 8):
                yield member.name, "its key is not a number of eight digits or more"
            present = samples.setdefault(key, [])
            if extension in present or (present and key != previous):
                yield member.name, "the key occurs twice"
            elif last is not None and key != previous and key.isdecimal() and int(key) < last:
                yield member.name, "the keys are not in increasing order"
            present.append(extension)
            previous, last = key, int(key) if key.isdecimal() else last
        for key, present in samples.items():
            for extension in wanted:
                if extension not in present:
                    yield f"{key}.{extension}", "the member is missing"
            for extension in sorted(set(present) - set(wanted)):
                yield f"{key}.{extension}", f"a sample of this set has only {', '.join(wanted)}"
            if sorted(set(present)) == list(wanted) and present != list(wanted) and len(present) == len(wanted):
                yield key, "its members are out of order"

    def read(self, data: memoryview, begin: int, table: NDArray[np.void], adopted_key: str = "") -> Decoded:
        """Decodes one sample.

        Args:
            data: bytes of the tar that hold the sample's members with their headers.
            begin: offset in the tar of the first byte of `data`.
            table: the sample's rows of the sidecar.
            adopted_key: the sample's key in an adopted set, whose headers may not hold it whole.

        Raises:
            DataError: a member of another name than the sidecar promises, or one that does not decode.
        """
        key, label, factors = adopted_key, -1, list[float]()
        pixels: NDArray[np.uint8] | None = None
        kinds = self.adopted or Adopted("", self.image.encoding, "cls", "json")
        for extension, (offset, size) in zip(self.extensions, table.tolist(), strict=True):
            at = offset - begin
            body = bytes(data[at : at + size])
            name = f"{key}.{extension}"
            if self.adopted is None:
                name = bytes(data[at - BLOCK : at - BLOCK + 100]).rstrip(b"\0").decode("ascii", "replace")
                found, _, kind = name.partition(".")
                if kind != extension or (key and found != key) or len(body) != size:
                    raise DataError(
                        f"member {name!r} stands where a .{extension} is due: the sidecar does not fit the tar"
                    )
                key = found
            try:
                if extension == kinds.image:
                    pixels = decode.image(body, self.image)
                elif extension == kinds.label:
                    label = decode.label(body, self.classes)
                else:
                    factors = decode.factors(body, self.factors)
            except DataError as error:
                raise DataError(f"member {name}: {error}") from None
        assert pixels is not None
        return Decoded(int(key) if self.adopted is None else key, pixels, label, factors)


def adopted_members(members: Iterable[Member]) -> Iterator[tuple[str, str, Member]]:
    """(key, extension, member) of a foreign tar's members, but for webdataset's own notes (`__name__`).

    Raises:
        DataError: a member of a type whose decoders run code.
    """
    for member in members:
        key, extension = decode.split_adopted(member.name)
        if extension.rpartition(".")[2] in decode.RUNNING_CODE:
            raise DataError(
                f"member {member.name}: a .{extension} can run code when it is decoded, so a set with one is not read"
            )
        if not key.rpartition("/")[2].startswith("__"):
            yield key, extension, member


def sample_digest(split: str, sample: Decoded, layout: Layout) -> bytes:
    """sha256 of what a sample is, whatever its encoding: split, key, shape, label, factors and pixels."""
    head = ["infogan-sample-1", split, sample.key, list(sample.image.shape), sample.label]
    named = dict(zip(layout.factors, sample.factors, strict=True))
    text = _compact.encode([*head, named])
    state = hashlib.sha256(text.encode("ascii") + b"\0")
    state.update(np.ascontiguousarray(sample.image).data)
    return state.digest()


class DatasetDigest:
    """A data set's identity: sha256 over its samples' digests in order (splits in the manifest's order)."""

    def __init__(self) -> None:
        self._state = hashlib.sha256(b"infogan-dataset-1")

    def update(self, digests: bytes) -> None:
        """Adds the digests of the next samples, 32 bytes each."""
        self._state.update(digests)

    def hexdigest(self) -> str:
        return self._state.hexdigest()
