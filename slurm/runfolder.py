"""What a run's folder says of its progress, read without torch: a login node should not have to wait for it."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infogan import lease
from infogan.lease import Heartbeat
from slurm import records
from slurm.parsing import cut
from slurm.records import number

if TYPE_CHECKING:
    from slurm.spec import Evaluation

REPORT_FORMAT = 1
"""`infogan.evaluation.evaluate.FORMAT`, which cannot be read without torch."""

_CHECKPOINT = re.compile(r"kimg-(\d+(?:\.\d+)?)")
_TAIL_BYTES = 1 << 16


def newest_checkpoint(run: Path) -> tuple[int, float]:
    """Images seen at the newest checkpoint and when it was written; zeros where there is none."""
    for images, path in reversed(_checkpoints(run)):
        with suppress(FileNotFoundError):  # the run has just removed it
            return images, (path / "manifest.json").stat().st_mtime
    return 0, 0.0


def heartbeat(run: Path) -> Heartbeat | None:
    """The newest lease of a run; None where there is none whose facts can be read."""
    found = lease.read(run)
    if found is None:
        return None
    facts, mi = found.facts, found.facts.get("mi", {})
    numbers = [
        facts.get("images", 0),
        *(facts[key] for key in ("stop_images", "images_per_s") if facts.get(key) is not None),
    ]
    if records.moment(facts.get("time")) and all(map(number, numbers)) and isinstance(mi, dict):
        return replace(found, facts=facts | {"mi": {name: value for name, value in mi.items() if number(value)}})
    records.ignore(run / lease.FOLDER / f"{found.number:06d}.json", "it is no heartbeat")
    return None


def checkpoint_digest(run: Path, which: str) -> str | None:
    """The digest of the checkpoint that `infogan evaluate --which` would take (`infogan.checkpoint.find`); None where
    there is none."""
    found = _checkpoints(run)
    if not found:
        return None
    chosen = found[-1][1]
    if which == "best":
        best = records.mapping(chosen / "state.json").get("best")
        folder = run / "checkpoints" / str(best.get("folder") if isinstance(best, dict) else None)
        if (folder / "manifest.json").is_file():
            chosen = folder
    elif which != "latest":
        wanted = round(float(which) * 1000) if re.fullmatch(r"\d+(\.\d+)?", which) else -1
        chosen = next((path for images, path in found if images == wanted), Path())
        if chosen == Path():
            return None
    with suppress(FileNotFoundError), (chosen / "manifest.json").open("rb") as file:  # the run may just have removed it
        return hashlib.file_digest(file, "sha256").hexdigest()
    return None


def report_of(run: Path, evaluate: "Evaluation") -> dict[str, Any] | None:
    """A run's report.json, where it is whole, of the checkpoint that `evaluate` asks for, of its split, seed and number
    of images, as far as its numbers state them, and of its weights and families, unless it is older than `options`."""
    report = _report(run)
    if report is None or report["checkpoint"]["digest"] != checkpoint_digest(run, evaluate.which):
        return None
    wanted = {"split": evaluate.split, "latent_seed": evaluate.seed, "generated_images": evaluate.samples}
    protocols = [metric.get("protocol") or {} for metric in report["metrics"]]
    protocols = [
        one if "draws" not in one else {**one, "generated_images": None} for one in protocols
    ]  # its own number
    for key, value in wanted.items():
        stated = [one[key] for one in protocols if one.get(key) is not None]
        if value is not None and stated and value not in stated:
            return None
    return report if _made_with(report.get("options") or {}, evaluate) else None


def _made_with(options: dict[str, Any], evaluate: "Evaluation") -> bool:
    """Whether a report made with these options answers what `evaluate` asks for: it may hold more families."""
    weights = str(Path(evaluate.weights)) if evaluate.weights is not None else None
    if options.get("weights", weights) != weights:
        return False
    made = options.get("only")
    return not made or (bool(evaluate.only) and set(evaluate.only) <= set(made))


def _report(run: Path) -> dict[str, Any] | None:
    """The content of a run's report.json; None where it has none that can be read."""
    content = records.mapping(run / "report" / "report.json")
    return content if content and not _fault(content) else None


def _fault(report: dict[str, Any]) -> str:
    """Why a report cannot be read; empty where it can."""
    if report.get("format", REPORT_FORMAT) != REPORT_FORMAT:
        return f"is of format {cut(str(report['format']))}, and this version reads {REPORT_FORMAT}: evaluate again"
    try:
        digests = [report["checkpoint"]["digest"], report["data"]["digest"]]
        options = report.get("options") or {}
        sound = isinstance(options, dict) and isinstance(options.get("only") or [], list)
        sound = sound and all(
            isinstance(metric["name"], str)
            and isinstance(metric["value"], int | float)
            and isinstance(metric.get("protocol") or {}, dict)
            for metric in report["metrics"]
        )
    except (KeyError, TypeError, AttributeError):
        return "cannot be read"
    return "" if sound and all(isinstance(digest, str) for digest in digests) else "cannot be read"


def damage(run: Path) -> list[str]:
    """What lies in a run's folder and counts as absent, since it is not whole."""
    if run.exists() and not run.is_dir():
        return ["a file stands in place of its folder"]
    found = [f"{path.name} has no manifest.json" for _, path in _named(run) if not (path / "manifest.json").is_file()]
    path = run / "report" / "report.json"
    fault = _fault(records.mapping(path)) if path.is_file() else ""
    return [*found, *([f"report.json {fault}"] if fault else [])]


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


def rows(run: Path) -> list[dict[str, Any]]:
    """The whole rows of a run's log, which goes forward: rows beyond a later one are of an older training."""
    found: list[dict[str, Any]] = []
    for row in _sound(run / "metrics.jsonl"):
        while found and found[-1]["kimg"] > row["kimg"]:
            found.pop()
        found.append(row)
    return found


def last_row(run: Path, key: str = "kimg") -> dict[str, Any]:
    """The last row of a run's log that has `key`; empty where there is none near the log's end."""
    path = run / "metrics.jsonl"
    if not path.is_file():
        return {}
    found = [row for row in _sound(path, max(0, path.stat().st_size - _TAIL_BYTES)) if key in row]
    return found[-1] if found else {}


def _sound(log: Path, begin: int = 0) -> Iterator[dict[str, Any]]:
    for row in records.rows(log, begin):
        if number(row.get("kimg")):
            yield row
        else:
            records.ignore(log, "a row in it has no kimg")


def tail(path: Path, lines: int, begin: int = 0) -> list[str]:
    """The last lines of a text file, of what stands from byte `begin` on; none where there is no file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(begin, path.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()[-lines:]
