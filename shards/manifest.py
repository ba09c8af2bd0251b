"""`manifest.json`: what a data set is, and the numbers that every byte of it must answer to.

Formats 1 and 2, one JSON object with exactly these keys:

    format     1, or 2 for a set that was adopted, see `shards.adopt`
    name       the data set's name
    source     {"kind": source, "options": {...}, "fingerprint": sha256 of the raw data or its listing,
                "skipped": number of unreadable images left out}
    image      {"height", "width", "channels" (1 or 3), "encoding": "png" | "npy" | "jpg"}
    classes    class names, label 0 first; empty for a set without labels
    factors    name -> {"kind": "categorical", "values": n}
                       or {"kind": "continuous", "range": [lo, hi], "periodic": bool}
    splits     name -> {"samples", "shards": [{"name", "samples", "bytes", "sha256"}]}
    digest     identity: sha256 over (split, key, decoded pixels, label, factors) of every sample, in order
    made_with  versions of what wrote it
    adopted    format 2 only: {"tars": folder or URL below which the tars lie, "" for the manifest's own place,
                "image", "label", "factors": the extension of each in the tars, "" for what the set has not}
    seal       sha256 of the canonical JSON (sorted keys, no spaces) of everything above

The seal is what finds an edited manifest: a count, a digest or a sha256 changed by hand no longer fits it. It
guards against accidents and careless edits, not against someone who computes a new seal (`verify` then still
compares all with the tars).

A shard of format 1 is named `<split>/<number>.tar`. One of format 2 keeps the name that it was found under, any
relative path to a `.tar`, and its samples their keys.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shards import atomic
from shards.errors import DataError

FORMAT = 1
ADOPTED_FORMAT = 2
FILE_NAME = "manifest.json"
SKIPPED = "skipped.json"  # beside it where unreadable images were left out: their names, and why
BUILD_FOLDER = ".build"  # beside the shards while a build is at work, see shards.writer
DERIVED_FOLDER = "derived"  # what others have computed from the data set and keep with it; a rebuild drops it
ENCODINGS = ("png", "npy", "jpg")
_KEYS = ("format", "name", "source", "image", "classes", "factors", "splits", "digest", "made_with", "seal")
_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_SHARD_NAME = re.compile(r"^(?P<split>[a-z][a-z0-9_]*)/[0-9]{6,}\.tar$")
SPLIT_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
_ADOPTED_NAME = re.compile(r"^(?![./])(?!.*/\.)[^\\\x00-\x1f]+\.tar$")  # no hidden part, so no way out of the folder


@dataclass(frozen=True)
class ImageSpec:
    """Shape and encoding of every image of a data set: uint8, height x width x channels."""

    height: int
    width: int
    channels: int
    encoding: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels

    @property
    def nbytes(self) -> int:
        """Bytes of one decoded image."""
        return self.height * self.width * self.channels


@dataclass(frozen=True)
class Shard:
    """One tar: its path relative to the data set, its samples, its size in bytes and its sha256."""

    name: str
    samples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """A split's samples and the shards that hold them, in order."""

    samples: int
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Adopted:
    """Where the tars of an adopted set lie, and the extensions of a sample's members; see the module's docstring."""

    tars: str
    image: str
    label: str
    factors: str


@dataclass(frozen=True)
class Manifest:
    """See the module's docstring for every field."""

    name: str
    source: dict[str, Any]
    image: ImageSpec
    classes: tuple[str, ...]
    factors: dict[str, dict[str, Any]]
    splits: dict[str, Split]
    digest: str
    made_with: dict[str, str]
    adopted: Adopted | None = None

    @property
    def tars(self) -> str:
        """The folder or URL below which the tars lie; "" for the manifest's own place."""
        return self.adopted.tars if self.adopted else ""

    @property
    def samples(self) -> int:
        """Samples in all splits together."""
        return sum(split.samples for split in self.splits.values())

    @classmethod
    def load(cls, root: str | os.PathLike[str]) -> Manifest:
        """Reads and checks the manifest of the data set in the folder `root`.

        Raises:
            DataError: no manifest, not JSON, a wrong, missing or unknown key, or a seal that does not fit the
            content.
        """
        path = Path(root) / FILE_NAME
        atomic.recover(root)
        try:
            data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(
                f"{root} is no finished data set: it has no {FILE_NAME}; build it with `infogan shards build`"
            ) from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, place: str) -> Manifest:
        """Reads and checks the bytes of a manifest; `place` is where they came from. Raises like `load`."""
        try:
            document = json.loads(data.decode("utf-8"))
        except UnicodeDecodeError:
            raise DataError(f"{place} is damaged: not UTF-8 text; build the data set again") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{place} is damaged: {error}; build the data set again") from None
        except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
            raise DataError(f"{place} is damaged: it is no manifest; build the data set again") from None
        return _parse(document, place)

    def document(self) -> dict[str, Any]:
        """The JSON document, sealed."""
        body: dict[str, Any] = {"format": ADOPTED_FORMAT if self.adopted else FORMAT, **asdict(self)}
        if self.adopted is None:
            del body["adopted"]
        body = json.loads(json.dumps(body))  # tuples become lists, as they are read back
        return {**body, "seal": seal(body)}

    def save(self, root: str | os.PathLike[str]) -> None:
        """Writes `manifest.json` into the folder `root`, in one step."""
        atomic.write_json(Path(root) / FILE_NAME, self.document())


def seal(document: dict[str, Any]) -> str:
    """sha256 of the canonical JSON of a manifest without its seal."""
    body = {key: value for key, value in document.items() if key != "seal"}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()


def check_plan(plan: dict[str, Any]) -> None:
    """Holds what a source promises to the rules by which the manifest made from it will be read.

    Args:
        plan: JSON with `source`, `image`, `classes`, `factors` and `splits` as in the manifest, but of each split only
            the number of samples.

    Raises:
        DataError: a value of another kind or out of range, a split whose name is no folder's, or no training image.
    """
    read = _Reader(f"source {plan['source']['kind']!r}", remedy="correct the source")
    read.text(plan["source"]["fingerprint"], "fingerprint")
    read.image(plan["image"])
    if not all(isinstance(name, str) for name in plan["classes"]):
        raise read.fail("classes", f"must be a list of names, not {plan['classes']!r}")
    read.factors(plan["factors"])
    for name, samples in read.mapping(plan["splits"], "splits").items():
        if not SPLIT_NAME.fullmatch(name):
            raise read.fail("splits", f"must have names of lowercase letters, digits and _, not {name!r}")
        read.whole(samples, f"splits.{name}")
    if not plan["splits"].get("train"):
        raise DataError(f"{read.subject}: there are no training images, {plan['splits']}: complete the raw data")


class _Reader:
    """Takes a manifest apart and names the place of whatever does not fit."""

    def __init__(
        self,
        subject: object,
        form: int = FORMAT,
        remedy: str = "the manifest was edited or damaged: build the data set again",
    ) -> None:
        self.subject, self.form, self.remedy = subject, form, remedy

    def fail(self, where: str, rule: str) -> DataError:
        return DataError(f"{self.subject}: {where} {rule}; {self.remedy}")

    def mapping(self, value: Any, where: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail(where, "must be a mapping")
        if keys is not None and set(value) != set(keys):
            missing = [key for key in keys if key not in value]
            unknown = [key for key in value if key not in keys]
            parts = [
                f"{label} {', '.join(names)}"
                for label, names in (("lacks", missing), ("has unknown", unknown))
                if names
            ]
            raise self.fail(where, " and ".join(parts))
        return value

    def whole(self, value: Any, where: str, lowest: int = 0) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < lowest:
            raise self.fail(where, f"must be a whole number of at least {lowest}, not {value!r}")
        return value

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self.fail(where, f"must be a text, not {value!r}")
        return value

    def sha256(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not _SHA256.match(value):
            raise self.fail(where, "must be a sha256 in 64 hexadecimal digits")
        return value

    def image(self, value: Any) -> ImageSpec:
        fields = self.mapping(value, "image", ("height", "width", "channels", "encoding"))
        for key in ("height", "width"):
            self.whole(fields[key], f"image.{key}", 1)
        if fields["channels"] not in (1, 3):
            raise self.fail("image.channels", f"must be 1 or 3, not {fields['channels']!r}")
        if fields["encoding"] not in ENCODINGS:
            raise self.fail("image.encoding", f"must be one of {', '.join(ENCODINGS)}, not {fields['encoding']!r}")
        return ImageSpec(**fields)

    def factors(self, value: Any) -> dict[str, dict[str, Any]]:
        for name, factor in self.mapping(value, "factors").items():
            where = f"factors.{name}"
            kind = self.mapping(factor, where).get("kind")
            if kind == "categorical":
                self.mapping(factor, where, ("kind", "values"))
                self.whole(factor["values"], f"{where}.values", 1)
            elif kind == "continuous":
                self.mapping(factor, where, ("kind", "range", "periodic"))
                self.range(factor["range"], f"{where}.range")
                if not isinstance(factor["periodic"], bool):
                    raise self.fail(f"{where}.periodic", "must be true or false")
            else:
                raise self.fail(f"{where}.kind", f"must be categorical or continuous, not {kind!r}")
        return dict(value)

    def range(self, value: Any, where: str) -> None:
        numbers = isinstance(value, list) and len(value) == 2 and all(isinstance(v, int | float) for v in value)
        if not numbers or not all(abs(v) <= sys.float_info.max for v in value) or not value[0] < value[1]:
            raise self.fail(where, f"must be two numbers, the lower first, not {value!r}")

    def split(self, name: str, value: Any) -> Split:
        where = f"splits.{name}"
        fields = self.mapping(value, where, ("samples", "shards"))
        if not isinstance(fields["shards"], list):
            raise self.fail(f"{where}.shards", "must be a list")
        shards = tuple(self.shard(name, shard, f"{where}.shards[{i}]") for i, shard in enumerate(fields["shards"]))
        if self.whole(fields["samples"], f"{where}.samples") != sum(shard.samples for shard in shards):
            raise self.fail(f"{where}.samples", "is not the sum of its shards' samples")
        return Split(fields["samples"], shards)

    def shard(self, split: str, value: Any, where: str) -> Shard:
        fields = self.mapping(value, where, ("name", "samples", "bytes", "sha256"))
        name = self.text(fields["name"], f"{where}.name")
        match = _SHARD_NAME.match(name)
        if self.form == ADOPTED_FORMAT:
            if not _ADOPTED_NAME.match(name):
                raise self.fail(f"{where}.name", f"must be a relative path to a .tar, not {name!r}")
        elif match is None or match["split"] != split:
            raise self.fail(f"{where}.name", f"must be {split}/<number>.tar, not {fields['name']!r}")
        self.whole(fields["samples"], f"{where}.samples", 1)
        self.whole(fields["bytes"], f"{where}.bytes", 1)
        self.sha256(fields["sha256"], f"{where}.sha256")
        return Shard(**fields)

    def adopted(self, value: Any) -> Adopted:
        fields = self.mapping(value, "adopted", ("tars", "image", "label", "factors"))
        for key, text in fields.items():
            if not isinstance(text, str):
                raise self.fail(f"adopted.{key}", f"must be a text, not {text!r}")
        self.text(fields["image"], "adopted.image")
        return Adopted(**fields)


def _parse(document: Any, place: str) -> Manifest:
    form = document.get("format", FORMAT) if isinstance(document, dict) else FORMAT
    if form not in (FORMAT, ADOPTED_FORMAT):
        raise DataError(
            f"{place} has format {form!r}, this version reads {FORMAT} and {ADOPTED_FORMAT}: build the data set again, "
            "or use a newer version"
        )
    read = _Reader(place, form)
    fields = read.mapping(document, "the manifest", _KEYS if form == FORMAT else (*_KEYS, "adopted"))
    source = read.mapping(fields["source"], "source", ("kind", "options", "fingerprint", "skipped"))
    classes = fields["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise read.fail("classes", "must be a list of names")
    made_with = read.mapping(fields["made_with"], "made_with")
    manifest = Manifest(
        name=read.text(fields["name"], "name"),
        source=source,
        image=read.image(fields["image"]),
        classes=tuple(classes),
        factors=read.factors(fields["factors"]),
        splits={name: read.split(name, value) for name, value in read.mapping(fields["splits"], "splits").items()},
        digest=read.sha256(fields["digest"], "digest"),
        made_with={key: read.text(value, f"made_with.{key}") for key, value in made_with.items()},
        adopted=read.adopted(fields["adopted"]) if form == ADOPTED_FORMAT else None,
    )
    names = [shard.name for split in manifest.splits.values() for shard in split.shards]
    if len(set(names)) != len(names):
        raise read.fail("splits", "name one shard twice")
    if fields["seal"] != seal(document):
        raise read.fail("seal", "does not fit the content")
    return manifest
