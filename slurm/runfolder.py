"""What a run's folder says of its progress, read without torch: a login node should not have to wait for it."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slurm.spec import Evaluation

_CHECKPOINT = re.compile(r"kimg-(\d+(?:\.\d+)?)")
_TAIL_BYTES = 1 << 16


def newest_checkpoint(run: Path) -> tuple[int, float]:
    """Images seen at the newest checkpoint and when it was written; zeros where there is none."""
    found = _checkpoints(run)
    if not found:
        return 0, 0.0
    images, path = found[-1]
    return images, (path / "manifest.json").stat().st_mtime


def checkpoint_digest(run: Path, which: str) -> str | None:
    """The digest of the checkpoint that `infogan evaluate --which` would take (`infogan.checkpoint.find`); None where
    there is none."""
    found = _checkpoints(run)
    if not found:
        return None
    chosen = found[-1][1]
    if which == "best":
        best = _json(chosen / "state.json").get("best") or {}
        if (run / "checkpoints" / str(best.get("folder")) / "manifest.json").is_file():
            chosen = run / "checkpoints" / best["folder"]
    elif which != "latest":
        wanted = round(float(which) * 1000) if re.fullmatch(r"\d+(\.\d+)?", which) else -1
        chosen = next((path for images, path in found if images == wanted), Path())
        if chosen == Path():
            return None
    return hashlib.sha256((chosen / "manifest.json").read_bytes()).hexdigest()


def report_of(run: Path, evaluate: "Evaluation") -> dict[str, Any] | None:
    """A run's report.json, where it is whole, of the checkpoint that `evaluate` asks for, and of its split, seed and
    number of images, as far as its numbers state them."""
    report = _report(run)
    if report is None or report["checkpoint"]["digest"] != checkpoint_digest(run, evaluate.which):
        return None
    wanted = {"split": evaluate.split, "latent_seed": evaluate.seed, "generated_images": evaluate.samples}
    protocols = [metric.get("protocol") or {} for metric in report["metrics"]]
    protocols = [
        one if "draws" not in one else {**one, "generated_images": None} for one in protocols
    ]  # its own number
    for key, value in wanted.items():
        stated = {one[key] for one in protocols if one.get(key) is not None}
        if value is not None and stated and value not in stated:
            return None
    return report


def _report(run: Path) -> dict[str, Any] | None:
    """The content of a run's report.json; None where it has none that can be read."""
    content = _json(run / "report" / "report.json")
    try:
        whole = bool(content["checkpoint"]["digest"]) and all({"name", "value"} <= m.keys() for m in content["metrics"])
    except (KeyError, TypeError, AttributeError):
        return None
    return content if whole else None


def damage(run: Path) -> list[str]:
    """What lies in a run's folder and counts as absent, since it is not whole."""
    found = [f"{path.name} has no manifest.json" for _, path in _named(run) if not (path / "manifest.json").is_file()]
    torn = (run / "report" / "report.json").is_file() and _report(run) is None
    return [*found, *(["report.json cannot be read"] if torn else [])]


def _named(run: Path) -> list[tuple[int, Path]]:
    """Images of every folder that bears a checkpoint's name, and the folder, the newest last."""
    folder = run / "checkpoints"
    return sorted(
        (round(float(match[1]) * 1000), path)
        for path in (folder.iterdir() if folder.is_dir() else ())
        if (match := _CHECKPOINT.fullmatch(path.name))
    )


def _checkpoints(run: Path) -> list[tuple[int, Path]]:
    return [(images, path) for images, path in _named(run) if (path / "manifest.json").is_file()]


def _json(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty where none can be read."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def rows(run: Path) -> Iterator[dict[str, Any]]:
    """The whole rows of a run's log."""
    path = run / "metrics.jsonl"
    yield from _parsed(path.read_bytes() if path.is_file() else b"")


def last_row(run: Path, key: str = "kimg") -> dict[str, Any]:
    """The last row of a run's log that has `key`; empty where there is none near the log's end."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        found = [row for row in _parsed(file.read()) if key in row]
    return found[-1] if found else {}


def _parsed(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:  # the first line of a tail begins anywhere
                continue


def tail(path: Path, lines: int, begin: int = 0) -> list[str]:
    """The last lines of a text file, of what stands from byte `begin` on; none where there is no file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(begin, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-lines:]
