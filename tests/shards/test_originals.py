"""What holds for every source that reads files as published: options, downloads, `check`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from shards.errors import UserError
from shards.sources import open_source
from shards.sources.checking import check


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("celeba", {"crop": 200}, "celeba: crop is 200: between 8 and 178"),
        ("celeba", {"size": 178}, "celeba: size is 178: .*the crop's 148"),
        ("chairs", {"crop": 601}, "chairs: crop is 601"),
        ("chairs", {"size": 4}, "chairs: size is 4"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(name, **options)


@pytest.mark.parametrize(("name", "dataset"), [("svhn", "SVHN"), ("celeba", "CelebA"), ("mnist", "MNIST")])
def test_a_download_that_fails_says_what_to_fetch_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, dataset: str
) -> None:
    from shards import torchvision_ops

    torchvision_ops.ensure_importable()
    import torchvision.datasets

    asked = []

    def offline(root: str, download: bool, **options: Any) -> None:
        asked.append((root, download))
        raise RuntimeError("no route to host\nand a second line")

    monkeypatch.setattr(torchvision.datasets, dataset, offline)
    with pytest.raises(UserError, match=r"failed \(no route to host\): fetch .* from http.* by hand") as caught:
        open_source(name, path=str(tmp_path), download=True)
    assert "\n" not in str(caught.value)
    assert asked == [(str(tmp_path), True)]


def test_check_finds_a_damaged_image_at_the_end(tmp_path: Path, originals: Any) -> None:
    from shards.sources import get

    options = originals.celeba_repackaged(tmp_path, 20)
    (tmp_path / "img_align_celeba" / "img_align_celeba" / "000020.jpg").write_bytes(b"\xff\xd8 torn")
    kind = get("celeba")
    _, lines = check(kind, kind.Options(**options))
    assert lines[0] == "20 images instead of the 202,599 published"
    assert "000020.jpg cannot be read as an image" in lines[-1]
