"""A sweep file becomes the runs that it says, the same ones every time, or one line that says what is wrong with it."""

import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import cluster as clusters
from slurm import expand as expanding
from slurm import spec as specs
from slurm.spec import Condition


def load(tmp_path: Path, text: str) -> specs.Spec:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return specs.load(path)


def values(spec: specs.Spec) -> list[dict[str, object]]:
    return list(spec.combinations())


def test_grid_zip_and_seeds_are_combined_and_exclusions_left_out(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        "base: paper/mnist\n"
        "grid: {batch: [64, 128], codes.digit.weight: [0.5, 1]}\n"
        "zip: {optimizer.critic.lr: [1e-4, 2e-4], optimizer.generator.lr: [5e-4, 1e-3]}\n"
        "seeds: [3, 5]\n"
        "exclude: [{batch: 64, seed: 5}]\n",
    )
    found = values(spec)
    assert len(found) == 2 * 2 * 2 * 2 - 4
    assert {(v["optimizer.critic.lr"], v["optimizer.generator.lr"]) for v in found} == {(1e-4, 5e-4), (2e-4, 1e-3)}
    assert not [v for v in found if v["batch"] == 64 and v["seed"] == 5]


def test_random_values_keep_to_their_distributions_and_depend_on_nothing_but_their_seed(tmp_path: Path) -> None:
    text = (
        "base: paper/mnist\nrandom:\n  draws: {draws}\n  seed: 7\n"
        "  optimizer.critic.lr: {{log_uniform: [1e-5, 1e-3]}}\n  batch: {{choice: [64, 128]}}\n{more}"
    )
    many = values(load(tmp_path, text.format(draws=400, more="")))
    rates = [float(str(v["optimizer.critic.lr"])) for v in many]
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    below = sum(rate < 1e-4 for rate in rates)  # the middle, as logarithms go: half of them, 5 standard deviations
    assert abs(below - 200) < 50
    more = "  codes.c1.weight: {uniform: [0, 2]}\n  accumulation: {integers: [1, 2]}\n"
    again = values(load(tmp_path, text.format(draws=10, more=more)))
    assert [v["optimizer.critic.lr"] for v in again] == rates[:10]
    assert {v["accumulation"] for v in again} == {1, 2}
    assert all(0 <= float(str(v["codes.c1.weight"])) <= 2 for v in again)


def test_a_run_has_the_same_id_whatever_else_is_in_the_sweep(tmp_path: Path) -> None:
    small = expanding.expand(load(tmp_path, "base: paper/mnist\nseeds: [2]\n"))
    large = expanding.expand(load(tmp_path, "base: paper/mnist\ngrid: {batch: [64, 128]}\nseeds: 3\n"))
    later = expanding.expand(load(tmp_path, "base: paper/mnist\nseeds: [2]\nfixed: {stop: 9000 updates}\n"))
    (run, _) = small[0]
    assert run.id in {other.id for other, _ in large}
    assert [other.id for other, _ in later] == [run.id]  # a later stop is the same run, going on
    assert len({other.id for other, _ in large}) == 6


def test_random_points_that_are_drawn_twice_count_once(tmp_path: Path) -> None:
    text = "base: paper/mnist\nrandom: {draws: 20, batch: {choice: [64, 128]}}\n"
    assert len(expanding.expand(load(tmp_path, text))) == 2


def test_exclusions_bring_a_large_sweep_below_its_limit(tmp_path: Path) -> None:
    text = "base: paper/mnist\nlimits: {runs: 2}\nseeds: 40\nexclude: [{batch: 64}]\ngrid: {batch: [64, 128]}\n"
    with pytest.raises(UserError, match=r"40 combinations, and limits.runs is 2; raise it"):
        expanding.expand(load(tmp_path, text))
    few = "".join(f"  - {{seed: {seed}}}\n" for seed in range(2, 40))
    spec = load(tmp_path, f"base: paper/mnist\nlimits: {{runs: 2}}\nseeds: 40\nexclude:\n{few}")
    assert [run.values["seed"] for run, _ in expanding.expand(spec)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("seeds: 1000000000", "1,000,000,000"),
        ("seeds: 1000000000\nexclude: [{seed: 3}]", "1,000,000,000"),
        ("random: {draws: 1000000000, batch: {choice: [64, 128]}}", "1,000,000,000"),
        ("grid: {" + ", ".join(f"k{n}: {list(range(100))}" for n in range(10)) + "}", f"{100**10:,}"),
        ("seeds: 1000\nzip: {batch: [64, 128]}", "2,000"),
    ],
)
def test_a_sweep_far_too_large_is_counted_and_not_listed(tmp_path: Path, text: str, count: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=rf": {count} combinations, and limits.runs is 1,000; raise it, or vary less"):
        expanding.expand(load(tmp_path, f"base: paper/mnist\n{text}\n"))
    assert time.monotonic() - began < 5


def test_a_shape_is_chosen_by_a_runs_values(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        "base: paper/mnist\ngrid: {batch: [64, 128]}\nshape: {processes: 2}\n"
        "shapes: [{when: {batch: 128}, nodes: 2, processes: 4, time: 30}]\n",
    )
    shapes = {run.values["batch"]: run.shape for run, _ in expanding.expand(spec)}
    assert (shapes[64].nodes, shapes[64].processes) == (1, 2)
    assert (shapes[128].nodes, shapes[128].processes, shapes[128].time) == (2, 4, "30")


def test_shapes_say_only_what_differs_from_shape(tmp_path: Path) -> None:
    spec = load(
        tmp_path,
        "base: paper/mnist\nseeds: 2\nshape: {processes: 2, time: 30, memory_per_process: 8G}\n"
        "shapes: [{when: {seed: 1}, nodes: 2}]\n",
    )
    assert spec.shape_of({"seed": 1}) == replace(spec.shape, nodes=2)


def test_a_file_whose_name_is_no_sweeps_name_is_told_what_to_say(tmp_path: Path) -> None:
    path = tmp_path / "my sweep.yaml"
    path.write_text("base: paper/mnist\n")
    with pytest.raises(UserError, match=r"'my sweep': must be letters, .*; say name: NAME in the file"):
        specs.load(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds: 2", "base: must name a preset, as in base: paper/mnist"),
        ("base: paper/mnst", "config 'paper/mnst': no such file and no such preset"),
        ("base: paper/mnist\ngrod: {}", "grod: unknown; known here: base, name, fixed, grid"),
        ("base: paper/mnist\ngrid: {batch: 64}", "grid.batch: 64: must be a list of values"),
        ("base: paper/mnist\nzip: {batch: [1, 2], seed: [1]}", "must be of one length (batch 2, seed 1)"),
        (
            "base: paper/mnist\nrandom: {draws: 2, batch: {normal: [0, 1]}}",
            "random.batch: {'normal': [0, 1]}: must be one",
        ),
        ("base: paper/mnist\nrandom: {batch: {integers: [1, 2]}}", "random.draws: None: must be a whole number"),
        ("base: paper/mnist\nrandom: {draws: 1, batch: {uniform: [2, 1]}}", "must be two numbers, the lower one first"),
        (
            "base: paper/mnist\nrandom: {draws: 1, batch: {log_uniform: [0, 1]}}",
            "random.batch.log_uniform: [0, 1]: must",
        ),
        ("base: paper/mnist\nfixed: {seed: 1}", "seed: belongs in seeds"),
        ("base: paper/mnist\nfixed: {batch: 1}\ngrid: {batch: [2]}", "grid.batch: is in fixed too; say it once"),
        ("base: paper/mnist\nseeds: 0", "seeds: 0: must be a whole number, at least 1"),
        ("base: paper/mnist\nshape: {nodes: 0}", "shape.nodes: 0: must be at least 1"),
        ("base: paper/mnist\nshape: {gpus: 1}", "shape.gpus: unknown setting"),
        ("base: paper/mnist\nshape: {time: soon}", "shape.time: 'soon': must be minutes"),
        ("base: paper/mnist\nstop_if: [mi/digit is low]", "stop_if.0: 'mi/digit is low': must be METRIC < NUMBER"),
        ("base: paper/mnist\nevaluate: {when: later}", "evaluate.when: 'later': must be one of never, run, array"),
        ("base: paper/mnist\nname: ../elsewhere", "name: '../elsewhere': must be letters"),
        ("base: paper/mnist\nexclude: [{seed: 0}]", "exclude leaves no run"),
        (
            "base: paper/mnist\ngrid: {batch: [64]}\nexclude: [{bach: 64}]",
            "exclude.0.bach: no run sets this; set here: batch, seed",
        ),
        ("base: paper/mnist\nshapes: [{when: {batch: 64}, nodes: 2}]", "shapes.0.when.batch: no run sets this; set"),
        ("base: paper/mnist\nshape: {gpus_per_process: -1}", "shape.gpus_per_process: -1: must be at least 0"),
        ("base: paper/mnist\nshape: {cpus_per_process: 0}", "shape.cpus_per_process: 0: must be at least 1"),
        ("base: paper/mnist\nlimits: {hours: -1}", "limits.hours: -1.0: must be above 0"),
        ("base: paper/mnist\nevaluate: {samples: 1}", "evaluate.samples: 1: must be at least 2"),
        ("base: paper/mnist\ncluster: [a]", "cluster: ['a']: must be a word"),
        (
            "base: paper/mnist\nlimits: {runs: 2}\nseeds: 3",
            "3 combinations, and limits.runs is 2; raise it, or vary less",
        ),
        ("base: paper/mnist\ngrid: {optimizer.citric.lr: [1]}", "optimizer.citric: unknown setting"),
        ("base: paper/mnist\ngrid: {batch: [-1]}", "the run with batch=-1 seed=0: batch: -1: must be at least 2"),
        (
            "base: paper/mnist\nfixed: {images.every_kimg: 0.1}",
            "would write up to 25,643 files, and limits.files is 1,000",
        ),
        ("base: [", "sweep.yaml: cannot be read as YAML"),
        ("base: paper/mnist\ngrid: {batch: [64, 128, 64]}", "grid.batch: 64: is there twice, which would be one run"),
        ("base: paper/mnist\nseeds: 99999999999999999999", "must be a whole number, at least 1 and below 2**63"),
        (f"base: {'x' * 5000}", "base: must name a preset, as in base: paper/mnist"),
        ("base: paper/mnist\ngrid: {batch: [64, 64.0]}", "grid.batch: 64.0: is there twice, which would be one run"),
        ("base: paper/mnist\nseeds: [3, 1, 3]", "seeds: 3: is there twice, which would be one run; say it once"),
        (
            "base: paper/mnist\nzip: {batch: [64, 64], accumulation: [1, 1]}",
            "zip: {'batch': 64, 'accumulation': 1}: is there twice",
        ),
        (
            "base: paper/mnist\ngrid: {stop: [10 updates, 20 updates]}",
            "stop=10 updates seed=0 and stop=20 updates seed=0 would be one run: stop does not make a run another",
        ),
        ("base: paper/mnist\ngrid: {batch: [!!binary aGVsbG8=]}", "grid.batch.0: b'hello': must be a number, a word"),
        ("base: paper/mnist\nfixed: {optimizer.critic.lr: .nan}", "fixed.optimizer.critic.lr: nan: must be finite"),
        (
            "base: paper/mnist\nstop_if: [mi/digit < 0.5 after 1.2.3 kimg]",
            "stop_if.0: 'mi/digit < 0.5 after 1.2.3 kimg': must be METRIC < NUMBER",
        ),
        ("base: paper/mnist\nstop_if: [mi/digit < 1-2]", "stop_if.0: 'mi/digit < 1-2': must be METRIC < NUMBER"),
        ("base: paper/mnist\nstop_if: [mi/digit < 1e999]", "stop_if.0: 'mi/digit < 1e999': must be METRIC < NUMBER"),
        ("base: paper/mnist\nevaluate: {which: newest}", "evaluate.which: 'newest': must be latest, best, or the kimg"),
        ("base: paper/mnist\nevaluate: {seed: -1}", "evaluate.seed: -1: must be at least 0"),
        ("base: paper/mnist\nevaluate: {samples: 2000000}", "evaluate.samples: 2000000: must be at least 2 and below"),
        (f"base: paper/mnist\nname: {'x' * 300}", f"name: '{'x' * 78}…: must be at most 80 characters"),
        (f"base: paper/mnist\n{'y' * 300}: 1", f"{'y' * 79}…: unknown; known here: base"),
    ],
)
def test_a_mistake_is_one_line_with_file_place_rule_and_remedy(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        expanding.expand(load(tmp_path, text))
    assert said in str(caught.value)
    assert str(tmp_path / "sweep.yaml") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_a_sweep_file_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder: name the sweep file itself"):
        specs.load(tmp_path)


@pytest.mark.parametrize(
    ("text", "row", "holds"),
    [
        ("mi/digit < 0.5 after 100 kimg", {"kimg": 120, "mi/digit": 0.4}, True),
        ("mi/digit < 0.5 after 100 kimg", {"kimg": 80, "mi/digit": 0.4}, False),
        ("mi/digit < 0.5 after 100 kimg", {"kimg": 120, "mi/digit": 0.6}, False),
        ("loss/critic >= 1e1", {"kimg": 1, "loss/critic": 10.0}, True),
        ("loss/critic > 10", {"kimg": 1, "loss/critic": None}, False),
        ("loss/critic > 10", {"kimg": 1}, False),
        ("loss/critic > 10", {"kimg": 1, "loss/critic": "high"}, False),
        ("validation/frechet2k[mnist-classifier@1a2b] > 10", {"validation/frechet2k[mnist-classifier@1a2b]": 11}, True),
    ],
)
def test_a_condition_holds_on_its_side_of_the_bound_from_its_kimg_on(
    text: str, row: dict[str, object], holds: bool
) -> None:
    assert Condition.parse(text).holds(row) is holds


@pytest.mark.parametrize(
    ("time", "minutes"),
    [("90", 90), ("1:30", 2), ("4:00:00", 240), ("1-00:00:00", 1440), ("2-12", 3600), ("0:30", 1), ("1-6:30", 1830)],
)
def test_time_limits_are_read_as_slurm_reads_them(time: str, minutes: int) -> None:
    assert clusters.minutes(time) == minutes


def test_every_cluster_and_every_sweep_of_ours_is_sound() -> None:
    folder = clusters.sections.presets_folder()
    for path in (folder / "clusters").glob("*.yaml"):
        assert clusters.load(path.stem).name == path.stem
    for path in (folder / "sweeps").glob("*.yaml"):
        assert expanding.expand(specs.load(path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: pbs", "kind: 'pbs': must be one of slurm, local"),
        ("preemption: {signal: USR1}", "preemption.signal: 'USR1': must be one of USR2, TERM, none"),
        ("preemption: {notice_s: 1}", "preemption.notice_s: 1: must be at least 10"),
        ("sbatch: {signal: USR1@5}", "sbatch.signal: is set by the sweep itself: use preemption.signal"),
        ("sbatch: {time: 90}", "sbatch.time: is set by the sweep itself: use time"),
        ("sbatch: {no-requeue: true}", "sbatch.no-requeue: is set by the sweep itself: use preemption.requeue"),
        ("sbatch: {job_name: x}", "sbatch.job_name: is set by the sweep itself: use name in the sweep file"),
        ("cpus_per_process: 0", "cpus_per_process: 0: must be at least 1"),
        ("memory_per_process: much", "memory_per_process: 'much': must be a number and M, G or T"),
        ("partitions: [a]", "partitions: unknown setting; did you mean 'partition'?"),
    ],
)
def test_a_mistake_in_a_cluster_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        clusters.load(str(path))
    assert said in str(caught.value)


def test_an_option_without_a_value_is_said_by_true_or_false(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("sbatch: {exclusive: true, overcommit: false, nice: 5}\n")
    assert clusters.load(str(path)).sbatch == {"exclusive": "", "nice": "5"}


def test_an_unknown_cluster_is_answered_with_ours() -> None:
    with pytest.raises(UserError, match="ours: local, preemptible, slurm_cpu, slurm_gpu"):
        clusters.load("nowhere")


def test_the_number_of_files_of_a_run_is_bounded(tmp_path: Path) -> None:
    """640 kimg with a picture set per 64: 12 sets of 4 pictures, 4 checkpoints of 6 files, and 11 others."""
    ((_, config),) = expanding.expand(load(tmp_path, "base: paper/mnist\n"))
    assert expanding.most_files(config) == 12 * 4 + 4 * 6 + 11
    assert math.isfinite(config.images.every_kimg)


def test_paths_of_a_config_are_whole_since_jobs_start_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text('{"zero_optimization": {"stage": 1}}')
    text = "base: paper/mnist\nfixed: {{data.path: here, deepspeed: {deepspeed}}}\n"
    for deepspeed, expected in (("mine.json", str(tmp_path / "mine.json")), ("zero2", "zero2")):
        ((_, config),) = expanding.expand(load(tmp_path, text.format(deepspeed=deepspeed)))
        assert (config.data.path, config.deepspeed) == (str(tmp_path / "here"), expected)


def test_a_name_that_is_left_open_is_the_files(tmp_path: Path) -> None:
    assert load(tmp_path, "base: paper/mnist\nname: null\n").name == "sweep"
