"""Builds a data set: from a source to reproducible WebDataset tars, their sidecars and a manifest.

While it runs, `.build/` in the data set's folder holds what a resumed build needs: `plan.json` (what is being
built), one small record per finished shard, and a lock. A shard is written beside its place and renamed, then
its record is written; so after a kill at any moment the finished shards are found by their records, checked
against them and kept, and all others are built anew. The manifest comes last, and only then does `.build/`
go.

Bytes depend on nothing but the samples, the options and the versions of Pillow and zlib: not on the number of
workers, the time, the user or a kill in between.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from shards import atomic, index
from shards.buildlock import BuildLock
from shards.errors import DataError, UserError
from shards.integrity import STAMPS, quick_faults
from shards.layout import DatasetDigest, Layout
from shards.manifest import BUILD_FOLDER, DERIVED_FOLDER, FILE_NAME, SKIPPED, ImageSpec, Manifest, Shard, Split
from shards.shardfile import ShardJob, Task
from shards.sources import Source
from shards.sources.checking import promised
from shards.versions import installed
from shards.workers import Workers, available_cores

ENCODINGS = ("png", "npy")


def build(
    source: Source,
    out_dir: str | os.PathLike[str],
    *,
    name: str | None = None,
    shard_size: int = 4096,
    encoding: str = "png",
    workers: int | None = None,
    progress: bool = True,
    force: bool = False,
) -> Manifest:
    """Builds the data set of a source in `out_dir`; continues a build that was cut off.

    Args:
        name: the data set's name; the folder's by default.
        shard_size: samples per shard.
        encoding: `png`, or `npy` (raw uint8, larger and faster to read).
        workers: processes; as many as there are cores by default.
        force: build anew where a data set, or an unfinished one of other options, already stands. The old one
            stays
            readable until the new one is complete (so both need space for a moment).

    Returns:
        The manifest; without doing anything where the same data set is already complete.

    Raises:
        UserError: another data set or foreign files in `out_dir`, another build at work there, no space left.
        DataError: an unreadable raw image; or a source that breaks its word, or has no training images.
    """
    out = Path(out_dir)
    if encoding not in ENCODINGS:
        raise UserError(f"encoding is {encoding!r}: choose {' or '.join(ENCODINGS)}")
    if not 1 <= shard_size <= 1_000_000:
        raise UserError(f"shard size is {shard_size}: between 1 and 1,000,000 samples are possible")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}: at least 1 is needed")
    atomic.recover(out)
    plan = _plan(source, name or out.resolve().name, shard_size, encoding)
    standing = _standing(out)
    if standing is not None and not force:
        return _already_complete(out, standing, plan, source)
    with atomic.explained(out):
        if force and out.exists():
            return _rebuild(source, out, plan, workers, progress)
        _refuse_foreign(out, plan)
        return _build_in(source, out, plan, workers, progress)


def _plan(source: Source, name: str, shard_size: int, encoding: str) -> dict[str, Any]:
    """Everything that the bytes depend on, as JSON."""
    said = promised(source)
    return {
        "name": name,
        "source": said["source"],
        "image": {**said["image"], "encoding": encoding},
        "classes": said["classes"],
        "factors": said["factors"],
        "splits": said["splits"],
        "shard_size": shard_size,
        "made_with": {
            "infogan": installed("infogan-harness") or "source tree",
            "pillow": installed("pillow"),
            "webdataset": installed("webdataset"),
        },
    }


def _tasks(plan: dict[str, Any]) -> Iterator[Task]:
    size = plan["shard_size"]
    for split, samples in plan["splits"].items():
        for number, begin in enumerate(range(0, samples, size)):
            yield Task(split, number, begin, min(begin + size, samples))


def _standing(out: Path) -> Manifest | None:
    return Manifest.load(out) if (out / FILE_NAME).exists() else None


def _already_complete(out: Path, standing: Manifest, plan: dict[str, Any], source: Source) -> Manifest:
    """Says that there is nothing to do, or why what stands there is not what was asked for."""
    document = standing.document()
    asked = {**plan, "source": {**plan["source"], "skipped": standing.source["skipped"]}}
    differing = [key for key in ("source", "image", "classes", "factors", "name") if asked[key] != document[key]]
    if not differing and not standing.source["skipped"]:
        shards = [(shard.name, shard.samples) for split in standing.splits.values() for shard in split.shards]
        differing = [] if shards == [(task.name, task.end - task.begin) for task in _tasks(plan)] else ["shard size"]
    if differing:
        raise UserError(
            f"{out} already holds another data set, {standing.name!r} from {standing.source['kind']!r} "
            f"(it differs in {', '.join(differing)}): choose another --out, or replace it with --force"
        )
    for split in standing.splits.values():
        for shard in split.shards:
            for fault in quick_faults(out / shard.name, index.sidecar(out / shard.name), shard):
                raise DataError(f"{out} is complete but damaged ({fault.shard}: {fault.rule}): replace it with --force")
    if (out / BUILD_FOLDER).exists():  # killed between the manifest and the tidying up
        shutil.rmtree(out / BUILD_FOLDER, ignore_errors=True)
    print(f"{out} is already complete: {standing.samples} samples, nothing to do", file=sys.stderr)
    return standing


def _refuse_foreign(out: Path, plan: dict[str, Any]) -> None:
    """A folder that holds anything but an unfinished build of this very plan is left alone."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    recorded = _recorded_plan(out)
    if recorded is not None and recorded != plan:
        differing = [key for key in plan if recorded.get(key) != plan[key]]
        raise UserError(
            f"{out} holds an unfinished build of {recorded.get('name')!r} that differs in "
            f"{', '.join(differing)}: finish that, choose another --out, or drop it with --force"
        )
    allowed = {BUILD_FOLDER, STAMPS, SKIPPED, *(plan["splits"] if recorded is not None else ())}
    _refuse_strangers(out, allowed)


def _refuse_strangers(out: Path, allowed: set[str]) -> None:
    strangers = sorted(p.name for p in out.iterdir() if p.name not in allowed and not atomic.is_temporary(p.name))
    if strangers:
        raise UserError(f"{out} holds files that are no data set of ours ({strangers[0]}): choose another --out")


def _recorded_plan(out: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads((out / BUILD_FOLDER / "plan.json").read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        return {}


def _rebuild(source: Source, out: Path, plan: dict[str, Any], count: int | None, progress: bool) -> Manifest:
    """Builds beside what stands at `out`, and lets the two change places once the new one is complete."""
    if not out.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    old = _recorded_plan(out)
    try:
        standing = _standing(out)
        known = set(standing.splits) if standing is not None else set()
    except DataError:  # a damaged manifest: only folders that this plan would make are ours
        known = set(plan["splits"])
    known |= set(old.get("splits", ())) if old is not None else set()
    _refuse_strangers(out, {BUILD_FOLDER, DERIVED_FOLDER, STAMPS, SKIPPED, FILE_NAME, *known})
    beside = out.parent / f".{out.name}.rebuild"
    if beside.exists() and _recorded_plan(beside) not in (None, plan):
        shutil.rmtree(beside)
    if (beside / FILE_NAME).exists():  # complete, and killed just before the exchange
        manifest = Manifest.load(beside)
    else:
        with BuildLock(out / BUILD_FOLDER, create=False):
            manifest = _build_in(source, beside, plan, count, progress)
    atomic.install(beside, out, replace=True)
    return manifest


def _build_in(source: Source, out: Path, plan: dict[str, Any], count: int | None, progress: bool) -> Manifest:
    work = out / BUILD_FOLDER
    with BuildLock(work) as lock:
        if (out / FILE_NAME).exists():  # another build finished it while we waited for the lock
            return Manifest.load(out)
        _refuse_foreign(out, plan)
        atomic.write_json(work / "plan.json", plan)
        for split in plan["splits"]:
            (out / split).mkdir(exist_ok=True)
            _clear(out / split, {Path(t.name).stem for t in _tasks(plan) if t.split == split}, lock.exclusive)
        _clear(work, None, lock.exclusive)
        _write_shards(source, out, plan, count, progress)
        manifest, skipped = _collect(out, plan)
        if skipped:
            atomic.write_json(out / SKIPPED, skipped)
            print(f"{len(skipped)} unreadable images were left out; {out / SKIPPED} lists them", file=sys.stderr)
        manifest.save(out)
        shutil.rmtree(work, ignore_errors=True)
    return manifest


def _clear(folder: Path, stems: set[str] | None, exclusive: bool) -> None:
    """Removes what a killed build left half written, and refuses what no build of this plan would have
    made."""
    if not exclusive:
        atomic.clean_stale(folder)
    for path in sorted(folder.iterdir()):
        if atomic.is_temporary(path.name):
            if exclusive:
                path.unlink(missing_ok=True)
        elif stems is not None and (path.stem not in stems or path.suffix not in (".tar", index.SUFFIX)):
            raise UserError(f"{path} is not part of this build: remove it or choose another --out")


def _write_shards(source: Source, out: Path, plan: dict[str, Any], count: int | None, progress: bool) -> None:
    tasks = list(_tasks(plan))
    spec = ImageSpec(**plan["image"])
    job = ShardJob(source, out, Layout(spec, len(plan["classes"]), plan["factors"]))
    processes = max(1, min(count or available_cores(), len(tasks)))
    # The workers start before the bar: its monitor is a thread, and a fork is cleanest without any.
    with Workers(job, processes) as pool, _bar(sum(plan["splits"].values()), plan["name"], progress) as bar:
        for kind, value in pool.run(tasks):
            if kind == "note":
                bar.update(value)


def _bar(total: int, name: str, progress: bool) -> Any:
    return tqdm(
        total=total,
        desc=f"shards {name}",
        unit=" images",
        unit_scale=True,
        disable=not progress,
        file=sys.stderr,
    )


def _collect(out: Path, plan: dict[str, Any]) -> tuple[Manifest, list[str]]:
    """Reads the shards' records, in order, into the manifest; also the list of what was left out."""
    digest, skipped = DatasetDigest(), list[str]()
    shards: dict[str, list[Shard]] = {split: [] for split in plan["splits"]}
    for task in _tasks(plan):
        record = json.loads((out / BUILD_FOLDER / task.record).read_text(encoding="utf-8"))
        digest.update(bytes.fromhex(record["digests"]))
        skipped += record["skipped"]
        if record["samples"]:
            shards[task.split].append(Shard(*(record[key] for key in ("name", "samples", "bytes", "sha256"))))
    manifest = Manifest(
        name=plan["name"],
        source={**plan["source"], "skipped": len(skipped)},
        image=ImageSpec(**plan["image"]),
        classes=tuple(plan["classes"]),
        factors=plan["factors"],
        splits={name: Split(sum(shard.samples for shard in part), tuple(part)) for name, part in shards.items()},
        digest=digest.hexdigest(),
        made_with=plan["made_with"],
    )
    return manifest, skipped
