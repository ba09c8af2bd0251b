"""What goes out: which runs stay and why, with which code the others go, and what a dry run shows of them."""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from infogan.sections import read_yaml
from shards import atomic
from shards.errors import UserError
from slurm import snapshot, status
from slurm.attempts import Record
from slurm.cluster import Cluster
from slurm.order import Order, order_for
from slurm.snapshot import Snapshot
from slurm.states import STATES
from slurm.submissions import Turn, newest
from slurm.sweep import Run, Sweep, described

if TYPE_CHECKING:
    from infogan.config import RunConfig

Say = Callable[[str], None]
Code = Mapping[str, Snapshot]
"""The code that each run is sent with, by the run's id."""


def check_folder(folder: Path) -> None:
    """Raise UserError where a sweep's folder cannot come to stand."""
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(parent))
    if not there.is_dir():
        raise UserError(f"sweep {folder}: {there} is no folder; say --out FOLDER, or remove it")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"sweep {folder}: the folder {there} may not be written; say --out FOLDER")


def why_not(sweep: Sweep, asked: Sequence[str], sending: Sequence[Run]) -> list[str]:
    """Of the runs that were named, those that are not sent again, and why."""
    named = {sweep.find(word).id for word in asked if word not in STATES} - {run.id for run in sending}
    if not named:
        return []
    return [
        f"run {found.id} is {found.state}, {STATES[found.state]}: it is not sent again"
        for found in status.look(sweep).runs
        if found.id in named
    ]


def code_of(sweep: Sweep, sending: Sequence[Run], choice: str | None) -> dict[str, Snapshot]:
    """The code of each run: as it is now; for runs that were begun with other code, `kept` or `new`, as asked for.

    Raises UserError where that would have to be asked for, or where kept code is gone.
    """
    begun = _begun(sweep, sending)
    if choice == "kept":
        found = {digest: snapshot.kept(sweep.folder, digest) for digest in dict.fromkeys(begun.values())}
        fresh = snapshot.take(sweep.folder) if len(begun) < len(sending) else None
        return {run.id: found[begun[run.id]] if run.id in begun else _known(fresh) for run in sending}
    now = snapshot.take(sweep.folder)
    if choice is None:
        _refuse_other_code(sweep, begun, now.digest)
    return dict.fromkeys((run.id for run in sending), now)


def check_code(sweep: Sweep, sending: Sequence[Run], choice: str | None) -> None:
    """What `code_of` refuses, without a snapshot of the code as it is."""
    begun = _begun(sweep, sending)
    if choice == "kept":
        for digest in dict.fromkeys(begun.values()):
            snapshot.kept(sweep.folder, digest)
    elif choice is None and begun:
        _refuse_other_code(sweep, begun, snapshot.digest_now(sweep.folder))


def _refuse_other_code(sweep: Sweep, begun: Mapping[str, str], now: str) -> None:
    others = [digest for digest in begun.values() if digest != now]
    if not others:
        return
    before, after = (sweep.folder / "code" / digest for digest in (others[0], now))
    changed = f"sweep {sweep.name}: the code has changed since {len(others)} of these runs began"
    if not before.is_dir():
        raise UserError(f"{changed}, and {before}, which they began with, is gone: --code new takes it as it is now")
    files = snapshot.differing(before, after) if after.is_dir() else []
    named = f" ({', '.join(files[:3])}{' and others' if len(files) > 3 else ''})" if files else ""
    raise UserError(
        f"{changed}{named}: --code kept goes on with the code of each, --code new with the code as it is now"
    )


def mixed(sweep: Sweep, sending: Sequence[Run], digests: Collection[str]) -> list[str]:
    """A line where other runs of the sweep were sent with code that is not of these digests."""
    sent, going = newest(sweep.folder).code, {run.id for run in sending}
    others = [run for run in sweep.runs if run.id not in going and sent.get(run.id, "") not in ("", *digests)]
    if not others or not going:
        return []
    return [f"{len(others)} other runs of sweep {sweep.name} were sent with other code: its table will hold both"]


def _known(fresh: Snapshot | None) -> Snapshot:
    assert fresh is not None
    return fresh


def _begun(sweep: Sweep, runs: Sequence[Run]) -> dict[str, str]:
    """The code that runs were last sent with, of those that have something to go on from."""
    sent = newest(sweep.folder).code
    return {run.id: sent[run.id] for run in runs if run.id in sent and (sweep.run_folder(run) / "checkpoints").is_dir()}


def deliver(
    sweep: Sweep, runs: Sequence[Run], where: Cluster, code: Code, say: Say, turn: Turn, *, train: bool
) -> bool:
    """Send the runs, or run them here; whether none of these failed and none was stopped."""
    from slurm import local, submit

    begun = _begun(sweep, runs)

    def order(run: Run) -> Order:
        found = order_for(sweep, run, where, code[run.id], train=train)
        if begun.get(run.id) == code[run.id].digest:
            found = replace(found, config=str(_as_begun(sweep, run).absolute()))
        # sent again all the same, it is not to be ended by the very row that ended it
        hopeless = any(past.outcome == "hopeless" for past in Record(sweep.folder, run.id).attempts())
        return replace(found, stop_if=()) if hopeless else found

    kind = "train" if train else "evaluate"
    turn.intend(kind=kind, cluster=where.name, code={run.id: code[run.id].digest for run in runs})
    if where.kind == "local":
        return local.run_all(sweep, runs, where, order, say, turn)
    submit.send(sweep, runs, where, code, order, say, turn)
    return True


def _as_begun(sweep: Sweep, run: Run) -> Path:
    """The config file of a run for the code that it was begun with: settings that newer code has added are left out."""
    saved = sweep.run_folder(run) / "config.yaml"
    if not saved.is_file():
        return sweep.config_file(run)
    new = read_yaml(sweep.config_file(run))
    known = _restricted(new, read_yaml(saved))
    if known == new:
        return sweep.config_file(run)
    text: str = yaml.safe_dump(known, sort_keys=False, allow_unicode=True)
    path = sweep.config_file(run).with_name(f"{run.id}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml")
    atomic.write_text(path, text)
    return path


def _restricted(new: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """The new values of settings that are known, in sections too."""
    return {
        key: _restricted(value, known[key]) if isinstance(value, Mapping) and isinstance(known[key], Mapping) else value
        for key, value in new.items()
        if key in known
    }


def show(
    sweep: Sweep, sending: Sequence[Run], configs: Mapping[str, "RunConfig"], where: Cluster, kept: bool
) -> list[str]:
    """What would be sent, in lines; `kept`: runs that were begun go with the code that they have."""
    from slurm import submit
    from slurm.expand import most_files

    lines = []
    for run in sending:
        files = most_files(configs[run.id])
        most = f"at most {files} files" if files is not None else "files: known once the data set is there"
        by_job = f" and {submit.files_of(run)} by its job" if where.kind == "slurm" else ""
        lines.append(f"{run.id}  {described(run.values)}  stop {run.stop}, {most}{by_job}")
    staying = f" ({len(sweep.runs) - len(sending)} more are not sent)" if len(sending) < len(sweep.runs) else ""
    lines.append(
        f"{len(sending)} runs in {sweep.folder}{staying}, on cluster {where.name}; a report and one TensorBoard file "
        "per start more"
    )
    begun = _begun(sweep, sending) if kept else {}
    now = {snapshot.digest_now(sweep.folder)} if len(begun) < len(sending) else set()
    lines += mixed(sweep, sending, now.union(begun.values()))
    if where.kind == "local":
        return [*lines, f"{where.parallel} at once, on this machine"]
    code = {run.id: _unwritten(sweep, begun.get(run.id, "DIGEST")) for run in sending}
    for batch in submit.batches(sending, where, code):
        lines.append(f"\n# {len(batch.runs)} runs:\n{submit.script(sweep, batch, where)}")
    return lines


def _unwritten(sweep: Sweep, digest: str) -> Snapshot:
    return Snapshot(digest, sweep.folder.absolute() / "code" / digest, ())
