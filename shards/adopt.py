"""Adopting WebDataset tars that others wrote: indexed and given a manifest, without rewriting them.

Every sample needs one image (png, jpg or npy) of one size and mode, and may have a label (cls, class, or a txt that
holds a number) and numbers in a json. Other members are left alone, but a type whose decoder runs code is refused. All
is decoded once, so what is adopted can be read.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards import atomic, decode, index, location, workers
from shards.cache import CacheOptions
from shards.errors import DataError, UserError
from shards.layout import DatasetDigest, Layout, adopted_members, sample_digest
from shards.manifest import FILE_NAME, Adopted, ImageSpec, Manifest, Shard, Split
from shards.tarlist import Tars
from shards.versions import installed

_MOST_CLASSES = 100_000
_MOST_VALUES = 256  # a factor of whole numbers below this is taken as categorical
_NONE = "none"


@dataclass(frozen=True)
class Choices:
    """What is read of each sample: extensions, `""` to find them out, `none` for no label.

    `factors`: whether the numbers of the `.json` members are known factors. `classes`: names, label 0 first.
    """

    image: str = ""
    label: str = ""
    factors: bool = False
    classes: tuple[str, ...] = ()


def adopt(
    place: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    choices: Choices | None = None,
    name: str | None = None,
    count: int | None = None,
    force: bool = False,
    progress: bool = True,
    cache: CacheOptions | None = None,
) -> Manifest:
    """Makes a data set of the tars in a folder or below a URL.

    Args:
        out: folder for the manifest and the sidecars; beside the tars by default, which a URL cannot take.
        splits: name -> patterns of tars relative to `place`, with * or {000..123}; found by the usual names otherwise.
        count: processes; as many as there are cores by default.
        force: replace a manifest that stands in `out`.
        cache: whose folder takes the tars of a URL while they are read.

    Raises:
        DataError: a tar that cannot be adopted, with the member, the rule and the remedy. UserError: a wrong argument.
    """
    source, choices = str(place), choices or Choices()
    if out is None and location.is_url(source):
        raise UserError(f"{location.shown(source)}: say with --out FOLDER where its manifest and index go")
    folder = Path(out if out is not None else source)
    if (folder / FILE_NAME).exists() and not force:
        raise UserError(
            f"{folder} holds a data set already: choose another --out, or replace its manifest with --force"
        )
    tars = Tars(source, cache or CacheOptions())
    chosen = tars.chosen(splits)
    layout, first = _first_sample(tars, chosen, choices)
    found = _examined(tars, chosen, layout, first, count, progress)
    manifest = _manifest(found, chosen, layout, choices, name or _name(source), location.shown(source))
    beside = "" if folder.resolve() == Path(source).resolve() else tars.absolute
    manifest = replace(manifest, adopted=replace(manifest.adopted, tars=beside)) if manifest.adopted else manifest
    with atomic.explained(folder):
        for record in found.values():
            atomic.write_bytes(index.sidecar(folder / record.shard.name), record.table)
        manifest.save(folder)
    return manifest


def _name(source: str) -> str:
    return location.shown(source).rstrip("/").rpartition("/")[2] or "adopted"


def _first_sample(tars: Tars, chosen: Mapping[str, Sequence[str]], choices: Choices) -> tuple[Layout, str]:
    """How a sample lies in the tars, as the first one shows, and which that is."""
    found: list[tuple[Layout, str]] = []

    def look(paths: Iterator[tuple[str, Path]]) -> None:
        name, path = next(paths)
        try:
            with index.mapped(path) as data:
                found.append(_look(name, data, choices))
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file; check the pattern") from None

    tars.opened([next(name for part in chosen.values() for name in part)], look)
    return found[0]


def _look(name: str, data: memoryview, choices: Choices) -> tuple[Layout, str]:
    try:
        members = list(adopted_members(index.walk(data, foreign=True)))
    except DataError as error:
        raise DataError(f"{name}: {error}; write the set anew without such members") from None
    if not members:
        raise DataError(f"{name}: it holds no sample; leave it out with --split")
    key = members[0][0]
    bodies = {ext: bytes(data[m.offset : m.offset + m.size]) for k, ext, m in members if k == key}
    image = _spelled(choices.image) or _the_image(name, key, bodies)
    label = "" if choices.label == _NONE else _spelled(choices.label) or _the_label(bodies)
    for wanted in filter(None, (image, label, "json" if choices.factors else "")):
        if wanted not in bodies:
            raise DataError(f"{name}: sample {key} has no .{wanted} member, only {', '.join(bodies)}; choose another")
    spec = _image_spec(f"{name}, member {key}.{image}", image, bodies[image])
    factors = _loose_factors(name, key, bodies["json"]) if choices.factors else {}
    layout = Layout(spec, _MOST_CLASSES, factors, Adopted("", image, label, "json" if choices.factors else ""))
    return layout, f"{key}.{image} of {name}"


def _spelled(extension: str) -> str:
    extension = extension.removeprefix(".").lower()
    return decode.SPELLINGS.get(extension, extension)


def _the_image(name: str, key: str, bodies: Mapping[str, bytes]) -> str:
    images = [extension for extension in bodies if extension.rpartition(".")[2] in ("png", "jpg", "npy")]
    if len(images) != 1:
        what = f"several images ({', '.join(images)}): say which with --image" if images else "no png, jpg or npy"
        raise DataError(f"{name}: sample {key} has {what}{'' if images else f', only {chr(44).join(bodies)}'}")
    return images[0]


def _the_label(bodies: Mapping[str, bytes]) -> str:
    if "cls" in bodies:
        return "cls"
    return "txt" if re.fullmatch(rb"\s*-?\d+\s*", bodies.get("txt", b"")) else ""


def _image_spec(place: str, extension: str, body: bytes) -> ImageSpec:
    """Height, width and channels of an image, by decoding it."""
    encoding = extension.rpartition(".")[2]
    try:
        return decode.spec_of(body, encoding)
    except DataError as error:
        raise DataError(f"{place}: {error}; convert the images to uint8, grey or RGB") from None


def _loose_factors(name: str, key: str, body: bytes) -> dict[str, dict[str, Any]]:
    """The numbers of a sample's json, with no ranges yet."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    good = isinstance(document, dict) and document and all(type(value) in (int, float) for value in document.values())
    if not good:
        raise DataError(f"{name}: {key}.json is no mapping from names to numbers; leave --factors out")
    return {
        factor: {"kind": "continuous", "range": [-sys.float_info.max, sys.float_info.max], "periodic": False}
        for factor in document
    }


@dataclass(frozen=True)
class _Record:
    """What reading one tar gave."""

    shard: Shard
    table: bytes
    digests: bytes
    highest_label: int
    factors: list[tuple[float, float, bool]]  # lowest, highest, whether all are whole


@dataclass
class _Examine:
    """Reads and decodes one tar whole."""

    layout: Layout
    first: str
    splits: dict[str, str]  # tar -> split

    def __call__(self, task: tuple[str, Path], note: Callable[[Any], None]) -> tuple[Path, _Record]:
        name, path = task
        try:
            with index.mapped(path) as data:
                return path, self._read(name, data, note)
        except FileNotFoundError:
            raise DataError(f"{path}: there is no such file; check the pattern") from None
        except DataError as error:
            rule = str(error).replace("as the manifest says", f"as the first one, {self.first}")
            raise DataError(
                f"{name}: {rule}; all samples need the same members, and images of one size and mode: mend the tar, or "
                "unpack it and build it with `infogan shards build folder`"
            ) from None

    def _read(self, name: str, data: memoryview, note: Callable[[Any], None]) -> _Record:
        layout, digests, highest = self.layout, bytearray(), -1
        members = layout.walk(data)
        table, width = index.entries(members), len(layout.extensions)
        spans = [(math.inf, -math.inf, True) for _ in layout.factors]
        for i in range(0, len(members), width):
            sample = layout.read(data, 0, table[i : i + width], layout.key(members[i].name))
            digests += sample_digest(self.splits[name], sample, layout)
            highest = max(highest, sample.label)
            spans = [
                (min(low, value), max(high, value), whole and value.is_integer())
                for (low, high, whole), value in zip(spans, sample.factors, strict=True)
            ]
        if not members:
            raise DataError("it holds no sample")
        samples = len(members) // width
        note(samples)
        shard = Shard(name, samples, len(data), hashlib.sha256(data).hexdigest())
        return _Record(shard, table.tobytes(), bytes(digests), highest, spans)


def _examined(
    tars: Tars, chosen: Mapping[str, Sequence[str]], layout: Layout, first: str, count: int | None, progress: bool
) -> dict[str, _Record]:
    """Reads all tars, in parallel: name -> record."""
    splits = {name: split for split, part in chosen.items() for name in part}
    found: dict[str, _Record] = {}
    with (
        workers.Workers(_Examine(layout, first, splits), min(count or workers.available_cores(), len(splits))) as pool,
        tqdm(desc="adopting", unit=" images", unit_scale=True, disable=not progress, file=sys.stderr) as bar,
    ):

        def read(paths: Iterator[tuple[str, Path]]) -> None:
            for kind, value in pool.run(paths):
                if kind == "note":
                    bar.update(value)
                    continue
                path, record = value
                found[record.shard.name] = record
                if tars.remote is not None:
                    path.unlink()

        tars.opened(list(splits), read)
    return found


def _manifest(
    found: Mapping[str, _Record],
    chosen: Mapping[str, Sequence[str]],
    layout: Layout,
    choices: Choices,
    name: str,
    source: str,
) -> Manifest:
    digest, prints, parts = DatasetDigest(), hashlib.sha256(), dict[str, Split]()
    for split, names in chosen.items():
        shards = tuple(found[tar].shard for tar in names)
        for tar in names:
            digest.update(found[tar].digests)
            prints.update(f"{split}\0{tar}\0{found[tar].shard.sha256}\0".encode())
        parts[split] = Split(sum(shard.samples for shard in shards), shards)
    assert layout.adopted is not None
    return Manifest(
        name=name,
        source={
            "kind": "adopted",
            "options": {"place": source, "image": layout.adopted.image, "label": layout.adopted.label or _NONE},
            "fingerprint": prints.hexdigest(),
            "skipped": 0,
        },
        image=layout.image,
        classes=_classes(max(record.highest_label for record in found.values()), choices),
        factors=_factors(list(layout.factors), [record.factors for record in found.values()]),
        splits=parts,
        digest=digest.hexdigest(),
        made_with={
            "infogan": installed("infogan-harness") or "source tree",
            "pillow": installed("pillow") or "unknown",
        },
        adopted=layout.adopted,
    )


def _classes(highest: int, choices: Choices) -> tuple[str, ...]:
    if not choices.classes:
        return tuple(str(label) for label in range(highest + 1))
    if highest >= len(choices.classes):
        raise DataError(
            f"the labels go up to {highest}, but only {len(choices.classes)} classes are named; name them all"
        )
    return choices.classes


def _factors(names: Sequence[str], spans: Sequence[Sequence[tuple[float, float, bool]]]) -> dict[str, dict[str, Any]]:
    """Few whole numbers from 0 on are categorical, others continuous, between the lowest and the highest found."""
    factors: dict[str, dict[str, Any]] = {}
    for name, parts in zip(names, zip(*spans, strict=True), strict=True):
        low, high, whole = min(p[0] for p in parts), max(p[1] for p in parts), all(p[2] for p in parts)
        if whole and low >= 0 and high < _MOST_VALUES:
            factors[name] = {"kind": "categorical", "values": int(high) + 1}
        else:
            low, high = (low, high) if low < high else (low - 0.5, high + 0.5)
            factors[name] = {"kind": "continuous", "range": [low, high], "periodic": False}
    return factors
