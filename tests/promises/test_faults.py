"""What is damaged, does not fit or runs out is named in one line, and nothing that was there is lost."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LAST, BEFORE = "kimg-000000.320", "kimg-000000.240"
LONGER = "stop=50 updates"


@pytest.fixture
def broken(tiny_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, for a test to damage."""
    shutil.copytree(tiny_run, tmp_path / "broken")
    return tmp_path / "broken"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def garble(path: Path) -> None:
    path.write_bytes(b"\x00\xff not json")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        ("generator.safetensors", flip, "generator.safetensors is damaged"),
        ("critic.safetensors", cut, "critic.safetensors is damaged"),
        ("optimizer.safetensors", remove, "not a whole checkpoint"),
        ("state.json", flip, "state.json is damaged"),
        ("manifest.json", remove, "not a whole checkpoint"),
        ("manifest.json", garble, "not a whole checkpoint"),
        ("manifest.json", lambda path: path.write_text('{"format": 1, "sha256": []}'), "not a whole checkpoint"),
        ("manifest.json", lambda path: path.write_text('{"format": 1, "sha256": {}}'), "not a whole checkpoint"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_not_loaded(
    infogan: Any, tiny_preset: Path, broken: Path, name: str, damage: Callable[[Path], None], said: str
) -> None:
    damage(broken / "checkpoints" / LAST / name)
    ended = infogan("train", str(tiny_preset), "--run", "broken", LONGER)
    assert ended.code == 2
    assert f"checkpoint broken/checkpoints/{LAST}" in ended.error
    assert said in ended.error
    assert "delete the folder" in ended.error


def test_the_remedy_for_a_damaged_checkpoint_works(
    infogan: Any, tiny_preset: Path, broken: Path, tiny_run: Path, left_by: Callable[[Path], Any]
) -> None:
    flip(broken / "checkpoints" / LAST / "ema.safetensors")
    assert infogan("train", str(tiny_preset), "--run", "broken").code == 2
    shutil.rmtree(broken / "checkpoints" / LAST)
    assert f"resuming from broken/checkpoints/{BEFORE}" in infogan.good("train", str(tiny_preset), "--run", "broken")
    found, expected = left_by(broken), left_by(tiny_run)
    assert found == expected


@pytest.mark.parametrize("override", ["codes.kind.ways=4", "network.norm=none"])
def test_weights_of_another_shape_are_refused(infogan: Any, tiny_preset: Path, tiny_run: Path, override: str) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "other", "--from", str(tiny_run), override)
    assert ended.code == 2
    assert re.search(r"\.safetensors: \d+ tensors do not fit the config's network or codes \(first: \S+\)", ended.error)


def test_what_a_killed_save_leaves_is_ignored_and_cleared_away(infogan: Any, tiny_preset: Path, broken: Path) -> None:
    die = (
        "import os\nfrom shards import atomic\ninstall = atomic.install\n"
        "def last(new, target, replace=False):\n"
        "    os.kill(os.getpid(), 9) if target.name == 'kimg-000000.400' else install(new, target, replace)\n"
        "atomic.install = last"
    )
    assert infogan("train", str(tiny_preset), "--run", "broken", LONGER, before=die).code == -9
    (torn,) = [path for path in (broken / "checkpoints").iterdir() if path.name.startswith(".")]
    assert (torn / "generator.safetensors").exists()
    assert f"resuming from broken/checkpoints/{LAST}" in infogan.good(
        "train", str(tiny_preset), "--run", "broken", LONGER
    )
    assert sorted(path.name for path in (broken / "checkpoints").iterdir()) == [LAST, "kimg-000000.400"]


FULL = """
import errno, os, pathlib
write_bytes = pathlib.Path.write_bytes
def full(self, data):
    if "kimg-000000.400" in str(self) and self.name == {name!r}:
        write_bytes(self, data[: len(data) // 2])
        raise OSError(errno.{error}, os.strerror(errno.{error}), str(self))
    return write_bytes(self, data)
pathlib.Path.write_bytes = full
"""


@pytest.mark.parametrize(("error", "said"), [("ENOSPC", "the disk is full"), ("EDQUOT", "the quota is used up")])
def test_a_full_disk_while_saving_costs_no_older_checkpoint(
    infogan: Any, tiny_preset: Path, broken: Path, error: str, said: str
) -> None:
    before = {path: path.read_bytes() for path in (broken / "checkpoints").rglob("*") if path.is_file()}
    full = FULL.format(name="ema.safetensors", error=error)
    ended = infogan("train", str(tiny_preset), "--run", "broken", LONGER, before=full)
    assert ended.code == 2
    assert f"cannot write broken/checkpoints/kimg-000000.400: {said}" in ended.error
    assert {path: path.read_bytes() for path in (broken / "checkpoints").rglob("*") if path.is_file()} == before
    infogan.good("train", str(tiny_preset), "--run", "broken", LONGER)


def test_a_full_disk_while_logging_is_one_line(infogan: Any, tiny_preset: Path) -> None:
    full = (
        "import errno, json, infogan.tracking as t\n"
        "def fail(row): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "t.json = type('json', (), {'dumps': staticmethod(fail), 'loads': json.loads})"
    )
    ended = infogan("train", str(tiny_preset), "--run", "logged", before=full)
    assert ended.code == 2
    assert "cannot write logged/metrics.jsonl: the disk is full" in ended.error


def test_a_log_that_was_cut_is_named(infogan: Any, tiny_preset: Path, broken: Path) -> None:
    cut(broken / "metrics.jsonl")
    ended = infogan("train", str(tiny_preset), "--run", "broken", LONGER)
    assert ended.code == 2
    assert re.search(r"broken/metrics.jsonl: \d+ bytes, but the checkpoint was saved when it had \d+", ended.error)


def shards_of(data: Path) -> list[Path]:
    return sorted((data / "train").glob("*.tar"))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: flip(shards_of(data)[0]), "train/000000.tar"),
        (lambda data: shards_of(data)[1].unlink(), "train/000001.tar"),
        (lambda data: cut(data / "manifest.json"), "manifest.json is damaged"),
    ],
)
def test_damaged_data_stops_training_before_an_update(
    infogan: Any, tiny_preset: Path, tiny_data: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny_data, data)
    damage(data)
    ended = infogan("train", str(tiny_preset), "--run", "unfed", f"data.path={data}")
    assert ended.code == 2
    assert said in ended.error
    assert not (tmp_path / "unfed" / "metrics.jsonl").exists()
    assert not (tmp_path / "unfed" / "config.yaml").exists()


def test_data_that_is_not_the_runs_is_refused(
    infogan: Any, tiny_preset: Path, broken: Path, make_data: Callable[..., Path]
) -> None:
    other = make_data(seed=1)
    ended = infogan("train", str(tiny_preset), "--run", "broken", LONGER, f"data.path={other}")
    assert ended.code == 2
    assert f"data {other}: digest " in ended.error
    assert "point data.path at the data set that it was trained on" in ended.error


def test_images_that_do_not_fit_the_network_are_refused_with_both_shapes(
    infogan: Any, tiny_preset: Path, tiny_data: Path
) -> None:
    ended = infogan("train", "paper/mnist", "--run", "misfit", f"data.path={tiny_data}", "device=cpu")
    assert ended.code == 2
    assert "images of 8x8x1, but network mnist takes 28x28x1" in ended.error
    assert not (infogan.folder / "misfit").exists()


def test_a_missing_data_set_says_how_to_build_it(infogan: Any, tiny_preset: Path) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "unfed", "data.path=nowhere")
    assert ended.code == 2
    assert "nowhere" in ended.error
    assert "infogan shards build" in ended.error


POISON = """
import torch, infogan.phases as p
{phase}_loss = p.{phase}_loss
calls = 0
def poisoned(*arguments):
    global calls
    calls += 1
    loss, statistics = {phase}_loss(*arguments)
    return (loss * float("nan") if calls == 14 else loss), statistics
p.{phase}_loss = poisoned
"""


@pytest.mark.parametrize("phase", ["critic", "generator"])
def test_an_update_that_is_not_finite_is_not_applied_and_stops_the_run(
    infogan: Any, tiny_preset: Path, phase: str, checkpoints_of: Callable[[Path], list[str]]
) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "poisoned", before=POISON.format(phase=phase))
    assert ended.code == 2
    assert f"update 13 (0.104 kimg), {phase} phase: its gradients were not finite, so it was not applied" in ended.error
    assert f"try a lower optimizer.{phase}.lr" in ended.error
    run = infogan.folder / "poisoned"
    assert checkpoints_of(run) == ["kimg-000000.080"]
    dump = json.loads((run / "nonfinite.json").read_text())
    assert (dump["phase"], dump["update"]) == (phase, 13)
    seen = infogan.good("train", str(tiny_preset), "--run", "poisoned", before=SHOWN)
    images = next(line for line in seen.splitlines() if line.startswith("update 13 saw "))
    assert images == f"update 13 saw {dump['indices']}"
    assert len(dump["images"]) == len(dump["indices"])
    assert all(re.fullmatch(r"train/\d{6}\.tar:\d+", place) for place in dump["images"])


# Prints which images an update gets, from the stream itself.
SHOWN = """
import infogan.trainer as t
update = t.Trainer._update
def told(self, batches):
    class Telling:
        def __next__(_):
            batch = next(batches)
            print("update", self.images // 8, "saw", batch.indices.tolist(), flush=True)
            return batch
    return update(self, Telling())
t.Trainer._update = told
"""


def test_a_learning_rate_that_destroys_the_weights_stops_the_run(infogan: Any, tiny_preset: Path) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "wild", "optimizer.critic.lr=1e30")
    assert ended.code == 2
    assert "its gradients were not finite, so it was not applied" in ended.error
    assert (infogan.folder / "wild" / "nonfinite.json").is_file()


# Memory for 60 images: above that torch's own allocator refuses, as it refuses 2^50 numbers. oneDNN, refused by the
# system in the middle of a backward pass, takes the process down with it, so a limit set by the system is no fair test.
LITTLE_MEMORY = """
import torch, weakref
from infogan.learner import Learner
update = Learner.update
class Activations: pass
held = None
def limited(self, parts, images):
    global held
    if held is not None and held() is not None:
        print("the first attempt's activations are still held")
    activations = Activations()
    held = weakref.ref(activations)
    if len(parts[0]) > 60:
        torch.empty(2**50)
    return update(self, parts, images)
Learner.update = limited
"""


def test_out_of_memory_names_a_batch_that_fits(infogan: Any, tiny_preset: Path) -> None:
    command = ("train", str(tiny_preset), "--run", "large", "stop=1 updates")
    ended = infogan(*command, "batch=192", before=LITTLE_MEMORY)
    assert ended.code == 2
    assert "still held" not in ended.output
    assert ended.error == (
        "error: out of memory on cpu at 192 images per process; the largest batch that was tried and fits is 48: "
        "say accumulation=4, which keeps batch 192 but lets BatchNorm see only 48 images at a time, or batch=48"
    )
    for remedy in (["batch=48"], ["batch=192", "accumulation=4"]):
        infogan.good(*command, *remedy, before=LITTLE_MEMORY)
        shutil.rmtree(infogan.folder / "large")


def test_out_of_memory_for_the_smallest_batch_says_so(infogan: Any, tiny_preset: Path) -> None:
    ended = infogan("train", str(tiny_preset), "--run", "large", before=LITTLE_MEMORY.replace("> 60", "> 1"))
    assert ended.code == 2
    assert "out of memory on cpu: not even 2 images fit; use a smaller network or another device" in ended.error


def test_one_process_of_several_that_is_out_of_memory_says_so_by_itself(infogan: Any, tiny_preset: Path) -> None:
    """The other does not answer while it is asked what fits."""
    alone = LITTLE_MEMORY.replace("> 60", "> 60 and (self.engine.rank == 1 or self.engine.world == 1)")
    ended = infogan.ranks(2, "train", str(tiny_preset), "--run", "large", "batch=192", before=alone)
    assert [end.code for end in ended] == [2, 2]
    assert "at 96 images per process; the largest batch that was tried and fits is 48" in ended[1].error
    assert "error" not in ended[0].output


def test_the_best_checkpoint_is_kept_beside_the_last_two(
    infogan: Any, tiny_preset: Path, checkpoints_of: Callable[[Path], list[str]]
) -> None:
    """Scores that are best at the second of five evaluations."""
    scored = (
        "import infogan.monitor as m\n"
        "score = lambda update: 1 - abs(update - 10) / 100\n"
        "m.validation_score = lambda model, data, readers: {'validation/accuracy/kind': score(model.origin.update)}\n"
        "m.refresh = lambda *arguments: None"
    )
    infogan.good("train", str(tiny_preset), "--run", "scored", "eval.every_kimg=0.04", "stop=25 updates", before=scored)
    run = infogan.folder / "scored"
    assert checkpoints_of(run) == ["kimg-000000.080", "kimg-000000.160", "kimg-000000.200"]
    best = json.loads((run / "checkpoints" / "kimg-000000.200" / "state.json").read_text())["best"]
    assert best == {"folder": "kimg-000000.080", "metric": "validation/accuracy/kind", "value": 1.0}
    assert "resuming" in infogan.good("train", str(tiny_preset), "--run", "scored", "eval.every_kimg=null")
    assert checkpoints_of(run) == ["kimg-000000.080", "kimg-000000.240", "kimg-000000.320"]


def test_a_run_scores_itself_while_it_trains(infogan: Any, tiny_preset: Path) -> None:
    infogan.good("train", str(tiny_preset), "--run", "judged", "eval.every_kimg=0.16", "check_interval=0.1")
    rows = [json.loads(line) for line in (infogan.folder / "judged" / "metrics.jsonl").read_text().splitlines()]
    scores = [row for row in rows if "loss/critic" not in row]
    assert [row["update"] for row in scores] == [20, 40]
    for row in scores:
        assert 0 <= row["validation/accuracy/kind"] <= 1
        assert "validation/mi/kind" in row


def test_a_checkpoint_of_another_run_is_refused_though_it_would_fit(
    infogan: Any, tiny_preset: Path, broken: Path
) -> None:
    infogan.good("train", str(tiny_preset), "--run", "other", "seed=1", "stop=10 updates")
    shutil.rmtree(broken / "checkpoints")
    shutil.copytree(infogan.folder / "other" / "checkpoints", broken / "checkpoints")
    ended = infogan("train", str(tiny_preset), "--run", "broken")
    assert ended.code == 2
    assert "of a run with another config" in ended.error
