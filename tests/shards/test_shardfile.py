"""A shard is to the byte what webdataset's own writer makes of the same members."""

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset.writer import TarWriter

from shards import build, index
from shards.shardfile import tar_header


@pytest.mark.parametrize("encoding", ["png", "npy"])
@pytest.mark.parametrize("kind", [{"channels": 3, "factors": True}, {"channels": 1}])
def test_bytes_are_those_of_webdatasets_writer(
    pattern: Any, tmp_path: Path, encoding: str, kind: dict[str, Any]
) -> None:
    manifest = build(pattern(**kind), tmp_path / "set", shard_size=32, encoding=encoding, progress=False)
    for split in manifest.splits.values():
        for shard in split.shards:
            path = tmp_path / "set" / shard.name
            assert rewritten(path) == path.read_bytes()
            np.testing.assert_array_equal(index.load(path), index.build(path))


def rewritten(path: Path) -> bytes:
    samples: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            body = tar.extractfile(member).read()  # type: ignore[union-attr]
            samples.setdefault(key, {"__key__": key})[extension] = body
    stream = io.BytesIO()
    with TarWriter(stream, user="infogan", group="infogan", mode=0o444, mtime=0, encoder=False) as writer:
        for sample in samples.values():
            writer.write(sample)
    return stream.getvalue()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 2**20 + 7, 2**33 - 1])
@pytest.mark.parametrize("name", ["00000000.png", "123456789012.json", f"{'7' * 96}.cls"])
def test_a_header_is_the_standard_librarys(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = size, 0o444, "infogan", "infogan"
    assert tar_header(name, size) == member.tobuf(tarfile.USTAR_FORMAT)
