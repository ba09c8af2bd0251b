"""Every damage is named by `verify`, and stops training before an update, whichever reader it uses."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shards import index
from shards.cache import CacheOptions, scratch
from shards.dataset import open_dataset
from shards.errors import DataError
from shards.loader import BatchStream, open_reader
from shards.manifest import DERIVED_FOLDER, seal
from shards.plan import Plan
from shards.verify import verify
from shards.writer import build

SHARD = "train/000001.tar"


def edit(path: Path, offset: int, change: Callable[[int], int] = lambda byte: byte ^ 0x01) -> None:
    """Changes one byte and leaves size and modification time as they were."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[offset] = change(data[offset])
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def members(root: Path) -> list[index.Member]:
    with index.mapped(root / SHARD) as data:
        return list(index.walk(data))


def flip_header(root: Path) -> None:
    edit(root / SHARD, members(root)[4].offset - 512 + 3)


def flip_header_size(root: Path) -> None:
    edit(root / SHARD, members(root)[4].offset - 512 + 134)


def flip_payload(root: Path) -> None:
    edit(root / SHARD, members(root)[5].offset + 60)


def flip_label(root: Path) -> None:
    edit(root / SHARD, members(root)[4].offset)


def flip_padding(root: Path) -> None:
    edit(root / SHARD, members(root)[4].offset + 100)


def flip_end(root: Path) -> None:
    edit(root / SHARD, (root / SHARD).stat().st_size - 5)


def cut_off_a_boundary(root: Path) -> None:
    os.truncate(root / SHARD, members(root)[7].offset + 30)


def cut_on_a_boundary(root: Path) -> None:
    os.truncate(root / SHARD, members(root)[6].offset - 512)


def grow(root: Path) -> None:
    with open(root / SHARD, "ab") as stream:
        stream.write(bytes(512))


def empty(root: Path) -> None:
    os.truncate(root / SHARD, 0)


def lose_shard(root: Path) -> None:
    (root / SHARD).unlink()


def add_shard(root: Path) -> None:
    (root / "train" / "000004.tar").write_bytes((root / SHARD).read_bytes())


def swap_shards(root: Path) -> None:
    one, other = root / SHARD, root / "train/000002.tar"
    one.rename(root / "aside")
    other.rename(one)
    (root / "aside").rename(other)


def lose_sidecar(root: Path) -> None:
    index.sidecar(root / SHARD).unlink()


def cut_sidecar(root: Path) -> None:
    os.truncate(index.sidecar(root / SHARD), 100)


def shorten_sidecar(root: Path) -> None:
    os.truncate(index.sidecar(root / SHARD), 12 * 60)


def swap_in_sidecar(root: Path) -> None:
    path = index.sidecar(root / SHARD)
    table = np.fromfile(path, index.ENTRY)
    table["size"][3] += 1
    path.write_bytes(table.tobytes())


def other_sidecar(root: Path) -> None:
    index.sidecar(root / SHARD).write_bytes(index.sidecar(root / "train/000003.tar").read_bytes())


def edit_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "manifest.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return apply


def lose_manifest(root: Path) -> None:
    (root / "manifest.json").unlink()


def tear_manifest(root: Path) -> None:
    path = root / "manifest.json"
    path.write_bytes(path.read_bytes()[:300])


def set_sha(document: dict[str, Any]) -> None:
    document["splits"]["train"]["shards"][1]["sha256"] = "0" * 64


def set_count(document: dict[str, Any]) -> None:
    shard = document["splits"]["train"]["shards"][1]
    shard["samples"] -= 1
    document["splits"]["train"]["samples"] -= 1


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped byte in a header": (flip_header, r"sha256|header of member 4 .*checksum"),
    "flipped byte in a header's size": (flip_header_size, r"header of member 4"),
    "flipped byte in an image": (flip_payload, r"sha256"),
    "flipped byte in a label": (flip_label, r"sha256"),
    "flipped byte in the padding": (flip_padding, r"member 4 .*stray bytes"),
    "flipped byte in the end mark": (flip_end, r"stray bytes follow the end-of-archive mark"),
    "cut inside a member": (cut_off_a_boundary, r"member 7 .*is cut off"),
    "cut between members": (cut_on_a_boundary, r"ends without an end-of-archive mark after 6 members"),
    "grown": (grow, r"the manifest says \d+"),
    "emptied": (empty, r"has 0 bytes"),
    "missing shard": (lose_shard, r"the shard is missing"),
    "extra shard": (add_shard, r"manifest does not know this shard"),
    "shards exchanged": (swap_shards, r"sha256"),
    "missing sidecar": (lose_sidecar, r"000001\.idx"),
    "sidecar cut inside an entry": (cut_sidecar, r"000001\.idx.*not a multiple"),
    "sidecar cut between entries": (shorten_sidecar, r"sidecar does not fit"),
    "sidecar with a wrong size": (swap_in_sidecar, r"sidecar does not fit|does not fit 000001\.tar"),
    "sidecar of another shard": (other_sidecar, r"sidecar does not fit|does not fit 000001\.tar"),
    "missing manifest": (lose_manifest, r"no finished data set"),
    "torn manifest": (tear_manifest, r"manifest\.json is damaged"),
    "manifest: edited sha256": (edit_manifest(set_sha), r"seal does not fit"),
    "manifest: edited counts": (edit_manifest(set_count), r"seal does not fit"),
    "manifest: edited total": (
        edit_manifest(lambda d: d["splits"]["train"].update(samples=99)),
        r"splits\.train\.samples is not the sum",
    ),
    "manifest: edited digest": (edit_manifest(lambda d: d.update(digest="1" * 64)), r"seal does not fit"),
    "manifest: missing key": (edit_manifest(lambda d: d.pop("classes")), r"lacks classes"),
    "manifest: unknown key": (edit_manifest(lambda d: d.update(comment="hi")), r"unknown comment"),
    "manifest: other format": (edit_manifest(lambda d: d.update(format=3)), r"format 3"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_by_verify(root: Path, damage: str) -> None:
    breaks, rule = DAMAGES[damage]
    assert verify(root, progress=False) == []
    breaks(root)
    faults = [str(fault) for fault in verify(root, progress=False)]
    assert any(re.search(rule, fault) for fault in faults), faults
    for fault in faults:
        assert "\n" not in fault
        assert ";" in fault  # a remedy


@pytest.mark.parametrize("kind", ["resident", "indexed"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_stops_training_before_an_update(root: Path, damage: str, kind: Any) -> None:
    def first_batch() -> None:
        dataset = open_dataset(root)
        reader = open_reader(dataset, "train", kind=kind, workers=0)
        with BatchStream(reader, Plan(dataset.shard_sizes("train"), seed=0), batch=10) as stream:
            next(stream)
        reader.close()

    first_batch()  # the damage comes after a run that found everything sound
    DAMAGES[damage][0](root)
    with pytest.raises(DataError) as caught:
        first_batch()
    assert "\n" not in str(caught.value)


def reseal(root: Path) -> None:
    """Makes manifest and sidecar agree with whatever stands in the tar: only its content is wrong then."""
    tar = root / SHARD
    with index.mapped(tar) as data:
        found = list(index.walk(data))
        sha256 = hashlib.sha256(data).hexdigest()
    index.write(tar, index.entries(found))
    path = root / "manifest.json"
    document = json.loads(path.read_text())
    shard = document["splits"]["train"]["shards"][1]
    shard.update(bytes=tar.stat().st_size, sha256=sha256)
    document["seal"] = seal(document)
    path.write_text(json.dumps(document))


def png(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def rewrite(root: Path, change: Callable[[list[tuple[str, bytes]]], None]) -> None:
    """Rewrites the members of a shard and reseals the set."""
    with tarfile.open(root / SHARD) as tar:
        content = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    change(content)
    with tarfile.open(root / SHARD, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    reseal(root)


def replace(number: int, data: bytes) -> Callable[[list[tuple[str, bytes]]], None]:
    def change(content: list[tuple[str, bytes]]) -> None:
        content[number] = (content[number][0], data)

    return change


def rename(number: int, name: str) -> Callable[[list[tuple[str, bytes]]], None]:
    def change(content: list[tuple[str, bytes]]) -> None:
        content[number] = (name, content[number][1])

    return change


GREY = np.zeros((6, 5), np.uint8)
# Member 2i is sample i's label, 2i + 1 its image; sample 0 of this shard has the key 96.
BAD_CONTENT: dict[str, tuple[Callable[[list[tuple[str, bytes]]], None], str]] = {
    "an image that is none": (replace(3, b"not a picture"), r"00000099.*cannot be decoded"),
    "an image cut short": (lambda c: replace(3, c[3][1][:40])(c), r"00000099.*cannot be decoded"),
    "an image of another shape": (replace(3, png(GREY.T)), r"00000099.*5x6, not 6x5"),
    "an image of another mode": (
        replace(3, png(np.zeros((6, 5, 3), np.uint8))),
        r"00000099.*mode RGB, not L",
    ),
    "another format under .png": (replace(3, b"GIF89a" + bytes(40)), r"00000099.*cannot be decoded"),
    "a label out of range": (replace(2, b"3"), r"00000099.*label 3 is out of range"),
    "a label that is no number": (replace(2, b"two"), r"00000099.*not a whole number"),
    "a key that occurs twice": (
        lambda c: (rename(2, "00000096.cls")(c), rename(3, "00000096.png")(c), None)[-1],
        r"00000096.*occurs twice",
    ),
    "a missing label": (lambda c: c.pop(2) and None, r"00000099\.cls.*missing"),
    "a missing image": (lambda c: c.pop(3) and None, r"00000099\.png.*missing"),
    "a member that runs code elsewhere": (rename(2, "00000099.pyd"), r"00000099\.pyd.*never opened"),
    "a member too many": (lambda c: c.insert(3, ("00000099.json", b"{}")), r"00000099\.json.*only cls, png"),
    "keys out of order": (
        lambda c: c.__setitem__(slice(0, 4), [*c[2:4], *c[0:2]]),
        r"00000096.*not in increasing order",
    ),
    "a sample too few": (lambda c: c.__delitem__(slice(0, 2)), r"holds 31 samples, the manifest says 32"),
    "pixels that were exchanged": (replace(3, png(GREY)), r"digest does not fit"),
}


@pytest.mark.parametrize("content", BAD_CONTENT)
def test_wrong_content_is_named_even_where_all_checksums_fit(root: Path, content: str) -> None:
    change, rule = BAD_CONTENT[content]
    rewrite(root, change)
    faults = [str(fault) for fault in verify(root, progress=False)]
    assert any(re.search(rule, fault) for fault in faults), faults


@pytest.mark.parametrize("content", [name for name in BAD_CONTENT if name != "pixels that were exchanged"])
def test_wrong_content_is_never_handed_out(root: Path, content: str) -> None:
    rewrite(root, BAD_CONTENT[content][0])
    for kind in ("resident", "indexed"):
        with pytest.raises(DataError):
            open_reader(open_dataset(root), "train", kind=kind, workers=0).gather(np.arange(100))  # type: ignore[arg-type]


def test_all_faults_are_found_at_once(root: Path) -> None:
    flip_payload(root)
    edit(root / "train/000000.tar", 700)
    (root / "test/000000.tar").unlink()
    named = {fault.shard for fault in verify(root, progress=False)}
    assert named == {SHARD, "train/000000.tar", "test/000000.tar"}


def test_leftovers_and_strangers_are_named(root: Path) -> None:
    (root / "train" / ".000000.tar.host-999999-0123abcd.partial").write_bytes(b"half")
    (root / "notes.txt").write_text("mine")
    (root / ".build").mkdir()
    rules = " ".join(str(fault) for fault in verify(root, progress=False))
    assert "unfinished write" in rules
    assert "notes.txt" in rules
    assert "cut off here" in rules


def test_a_shallow_look_reads_no_data(root: Path) -> None:
    flip_payload(root)
    assert verify(root, deep=False, progress=False) == []
    lose_shard(root)
    assert len(verify(root, deep=False, progress=False)) == 1


def test_a_sound_shard_is_hashed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_reader(open_dataset(root), "train", kind="indexed", workers=0).close()
    monkeypatch.setattr("shards.indexed.workers.Workers", None)  # a second check would have to start some
    open_reader(open_dataset(root), "train", kind="indexed", workers=0).close()
    os.utime(root / SHARD)
    with pytest.raises(TypeError):
        open_reader(open_dataset(root), "train", kind="indexed", workers=0)


def test_a_read_only_data_set_can_be_read(
    root: Path, pattern: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    open_reader(open_dataset(root), "train", kind="indexed", workers=0).close()
    assert not (root / ".verified.json").exists()
    assert len(list((tmp_path / "cache" / "infogan").iterdir())) == 1
    assert build(pattern(), root, shard_size=32, progress=False).samples == 120


def test_what_a_killed_process_had_fetched_is_removed_by_the_next(tmp_path: Path) -> None:
    options = CacheOptions(str(tmp_path / "cache"))
    hold = (
        "import sys, time\nfrom shards.cache import CacheOptions, scratch\n"
        "with scratch(CacheOptions(sys.argv[1])) as folder:\n"
        "    (folder / 'a.tar').write_bytes(b'x')\n    print(folder, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, options.path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        process.kill()
    assert (left / "a.tar").is_file()
    with scratch(options) as folder:
        assert not left.exists()
        assert folder.is_dir()
    assert not list((tmp_path / "cache" / "scratch").iterdir())


def test_what_others_derived_from_a_data_set_is_no_fault_and_is_dropped_by_a_rebuild(
    root: Path, pattern: Callable[..., Any]
) -> None:
    kept = root / DERIVED_FOLDER / "extractor" / "weights"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"derived")
    assert verify(root, progress=False) == []
    build(pattern(), root, shard_size=32, workers=1, progress=False, force=True)
    assert verify(root, progress=False) == []
    assert not kept.exists()
