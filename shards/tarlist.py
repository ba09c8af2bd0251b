"""The tars that are adopted: which they are, and their bytes, from a folder or from below a URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from braceexpand import braceexpand

from shards import atomic, location
from shards.cache import CacheOptions, scratch
from shards.errors import DataError, UserError
from shards.manifest import SPLIT_NAME
from shards.transport import Remote

_USUAL_SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation"}
_USUAL_SPLITS |= {"validation": "validation", "dev": "validation", "test": "test", "testing": "test"}
_SPLIT_PREFIX = re.compile(rf"(?:^|/)(?P<split>{'|'.join(_USUAL_SPLITS)})(?=[-_./0-9])")


class Tars:
    """The tars below a folder or a URL."""

    def __init__(self, source: str, cache: CacheOptions) -> None:
        self.source, self.cache = source, cache
        self.remote = Remote(source) if location.is_url(source) else None
        if self.remote is None and not Path(source).is_dir():
            raise UserError(f"{source}: no such folder; give the folder of the tars, or a URL")

    @property
    def absolute(self) -> str:
        return self.source if self.remote else str(Path(self.source).resolve())

    def chosen(self, splits: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
        """Split -> names of its tars, relative to the source, in order."""
        found = self._by_pattern(splits) if splits else self._by_usual_names()
        names = [name for part in found.values() for name in part]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise UserError(f"{twice}: belongs to two splits; give patterns that do not overlap")
        for name in names:
            if not name.endswith(".tar"):
                raise UserError(f"{name}: only uncompressed .tar files can be read at any place; unpack it first")
        return found | {name: [] for name in ("train", "validation", "test") if name not in found}

    def _by_pattern(self, splits: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for split, patterns in splits.items():
            if not SPLIT_NAME.match(split):
                raise UserError(f"--split {split}: a split's name is made of small letters, digits and _")
            found[split] = []
            for pattern in (each for text in patterns for each in braceexpand(text)):
                matching = self._matching(pattern) if set("*?[") & set(pattern) else [pattern]
                if not matching:
                    raise UserError(f"--split {split}={pattern}: matches no file in {location.shown(self.source)}")
                found[split] += matching
        return found

    def _by_usual_names(self) -> dict[str, list[str]]:
        names = self._matching("*.tar")
        for folder in _USUAL_SPLITS:
            names += self._matching(f"{folder}/*.tar")
        by_split: dict[str, list[str]] = {}
        for name in names:
            match = _SPLIT_PREFIX.search(name)
            by_split.setdefault(_USUAL_SPLITS[match["split"]] if match else "", []).append(name)
        if not names:
            raise UserError(
                f"{location.shown(self.source)}: no .tar is found there; say which with --split train=PATTERN, as in "
                "train='shard-{000000..000099}.tar'"
            )
        if "" in by_split and len(by_split) > 1:
            raise UserError(
                f"{by_split[''][0]}: its name says no split, while others' do; say all with --split NAME=PATTERN"
            )
        return {
            split or "train": by_split[split]
            for split in sorted(by_split, key=["train", "", "validation", "test"].index)
        }

    def _matching(self, pattern: str) -> list[str]:
        if self.remote is not None:
            try:
                return self.remote.find(pattern)
            except DataError:  # no such folder, or a server without listings
                return []
        root = Path(self.source)
        return sorted(path.relative_to(root).as_posix() for path in root.glob(pattern) if path.is_file())

    def opened(self, names: Sequence[str], use: Callable[[Iterator[tuple[str, Path]]], None]) -> None:
        """Lets `use` have (name, path on this machine) of tars, one after the other; it removes what was fetched."""
        if self.remote is None:
            use((name, Path(self.source) / name) for name in names)
            return
        with scratch(self.cache) as folder:
            use(self._fetched(self.remote, names, folder))

    def _fetched(self, remote: Remote, names: Sequence[str], folder: Path) -> Iterator[tuple[str, Path]]:
        for number, name in enumerate(names):
            path = folder / f"{number}.tar"
            with atomic.file(path, flush=False) as file:
                remote.copy(name, file)
            yield name, path
