"""The code that a sweep's jobs run: a copy taken when they are submitted, so that no later edit changes any of them.

`code/<digest>/` holds the floors and the presets, of a checkout what git tracks of them or does not ignore, and the
plugins. `CODE.json` in it says which commit that was, what differs from it, and the versions of all installed packages.
"""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import infogan
from infogan.commit import CODE_FILE, git
from shards import atomic, plugins
from shards.errors import UserError

FLOORS = ("infogan", "launch", "shards", "slurm", "configs")
MOST_MB = 200
DIGEST_LENGTH = 12


@dataclass(frozen=True)
class Snapshot:
    """A copy of the code: its digest, its folder, and the plugins in it, in the order in which they are loaded."""

    digest: str
    folder: Path
    plugins: tuple[str, ...]


def take(sweep: Path) -> Snapshot:
    """Copy the code of this process into the sweep, unless the very same stands there already."""
    root = _root()
    contents, named = _contents(sweep)
    digest = _digest(contents)
    target = sweep / "code" / digest
    if not target.is_dir():
        with atomic.folder(target) as beside:
            for path, content in contents.items():
                (beside / path).parent.mkdir(parents=True, exist_ok=True)
                (beside / path).write_bytes(content)
            about = json.dumps({"digest": digest, **_about(root)}, indent=1)
            (beside / CODE_FILE).write_text(about, encoding="utf-8")
    return Snapshot(digest, target.absolute(), tuple(str(target.absolute() / name) for name in named))


def digest_now(sweep: Path) -> str:
    """What the digest of a snapshot would be."""
    return _digest(_contents(sweep)[0])


def _root() -> Path:
    return Path(infogan.__file__).resolve().parent.parent


def _contents(sweep: Path) -> tuple[dict[str, bytes], list[str]]:
    """The files of a snapshot, and which of them are plugins, in the order in which they are loaded."""
    own = sweep.resolve()
    files = {name: path for name, path in _files(_root()) if not path.is_relative_to(own)}
    loaded = [Path(plugin.file) for plugin in plugins.known()]
    named = [f"plugins/{number}/{path.name}" for number, path in enumerate(loaded)]
    files |= dict(zip(named, loaded, strict=True))
    return {path: source.read_bytes() for path, source in sorted(files.items())}, named  # once: it may be edited


def _digest(contents: Mapping[str, bytes]) -> str:
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in contents.items()}
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()[:DIGEST_LENGTH]


def kept(sweep: Path, digest: str) -> Snapshot:
    """A snapshot that was taken before."""
    folder = (sweep / "code" / digest).absolute()
    if not folder.is_dir():
        raise UserError(
            f"{folder}: the code that runs of the sweep were begun with is gone; say --code new for the code as it is"
        )
    found = sorted((folder / "plugins").glob("*/*.py"), key=lambda path: int(path.parent.name))
    return Snapshot(digest, folder, tuple(map(str, found)))


def differing(one: Path, other: Path) -> list[str]:
    """The files in which two snapshots differ."""
    sides = [
        {
            str(path.relative_to(side)): path.read_bytes()
            for path in side.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        for side in (one, other)
    ]
    names = sides[0].keys() | sides[1].keys()
    return sorted(name for name in names if name != CODE_FILE and sides[0].get(name) != sides[1].get(name))


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Our files, by their path below `root`: in a checkout those that git does not ignore, else the packages."""
    listed = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *FLOORS)
    if listed is not None:
        names = [name for name in listed.split("\0") if name and (root / name).is_file()]
    else:
        names = [
            str(path.relative_to(root))
            for floor in FLOORS
            for path in (root / floor).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]
    sizes = {name: (root / name).stat().st_size for name in names}
    if sum(sizes.values()) > MOST_MB * 2**20:
        largest = max(sizes, key=lambda name: sizes[name])
        raise UserError(
            f"the code in {root} is over {MOST_MB} MB with what git does not ignore (the largest: {largest}); "
            "add what is no code to .gitignore"
        )
    yield from ((name, root / name) for name in names)


def _about(root: Path) -> dict[str, str | None]:
    commit = git(root, "rev-parse", "HEAD")
    lock = root / "requirements.lock"
    return {
        "commit": commit.strip() if commit else None,
        "diff": git(root, "diff", "HEAD"),
        "untracked": git(root, "ls-files", "--others", "--exclude-standard"),
        "lock": lock.read_text(encoding="utf-8") if lock.is_file() else None,
        "installed": "\n".join(sorted({f"{found.name}=={found.version}" for found in distributions()})),
        "python": platform.python_version(),
        "interpreter": sys.executable,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
