"""What a cluster file may say: nothing of it changes what sbatch answers, or becomes another line of the script."""

from pathlib import Path

import pytest

from shards.errors import UserError
from slurm import cluster as clusters
from slurm import spec as specs


def refused(folder: Path, text: str) -> str:
    path = folder / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as told:
        clusters.load(str(path))
    said = str(told.value)
    assert "\n" not in said
    return said.partition("c.yaml: ")[2]


@pytest.mark.parametrize(
    ("key", "said"),
    [
        *((key, "changes what sbatch prints, when it returns") for key in clusters.BARRED),
        ("test_only", "changes what sbatch prints"),
        ("wai", "sbatch would read it as wait"),
        ("W", "must be an option's long name"),
        ("''", "must be an option's long name"),
        ("--nice", "must be an option's long name"),
        ("nice=4", "must be an option's long name"),
        ("'a b'", "must be an option's long name"),
        ("mem", "is set by the sweep itself: use memory_per_process"),
    ],
)
def test_options_that_change_what_sbatch_answers_are_refused(tmp_path: Path, key: str, said: str) -> None:
    name = key.strip("'")
    assert refused(tmp_path, f"sbatch: {{{key}: true}}\n").startswith(f"sbatch.{name}: {said}")


def test_other_options_pass() -> None:
    for key in ("gpus", "ntasks", "wait_all_nodes", "wait-all-nodes", "hold", "comment", "mem-per-gpu", "time-min"):
        clusters.Cluster(sbatch={key: "1"})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('partition: "a\\n#SBATCH --wait"', "partition"),
        ('account: "a\\rb"', "account"),
        ('sbatch: {exclude: "a\\nb"}', "sbatch.exclude"),
        ('srun: [--x, "a\\nb"]', "srun.1"),
        ('modules: ["a\\nb"]', "modules.0"),
        ('environment: {A: "$B\\nb"}', "environment.A"),
    ],
)
def test_no_word_becomes_another_line_of_the_script(tmp_path: Path, text: str, place: str) -> None:
    assert refused(tmp_path, text).startswith(f"{place}: ")


@pytest.mark.parametrize("name", ["1A", "A B", "A-B", "''", "A;rm", "É"])
def test_a_variable_has_a_name_that_a_shell_takes(tmp_path: Path, name: str) -> None:
    said = refused(tmp_path, f"environment: {{{name}: x}}")
    assert said.startswith(f"environment.{name.strip(chr(39))}: no name of a variable")


def test_lines_of_setup_may_be_anything() -> None:
    clusters.Cluster(setup=("if true\nthen ulimit -n 4096\nfi",))


@pytest.mark.parametrize(
    "text",
    ["sbatch: [1]", "sbatch: {nice: [1]}", "sbatch: {exclusive: null}", "environment: [a]", "environment: {A: null}",
     "modules: cuda", "preemption: x", "kind: [a]", "parallel: two", "time: [1]", "time: null", "- a", "\0"],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_told_in_a_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as told:
        clusters.load(str(path))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("time", "minutes"), [("4:00:00", 240), ("1-00:00:00", 1440), ("90:00", 90), ("90", 90), ("'4:00:00'", 240)]
)
def test_a_time_limit_in_a_file_is_what_slurm_would_read(tmp_path: Path, time: str, minutes: int) -> None:
    """To YAML, `4:00:00` without quotes is the number 14400."""
    (tmp_path / "c.yaml").write_text(f"time: {time}  # a comment\nsbatch: {{begin: 16:00, nice: 5}}\n")
    found = clusters.load(str(tmp_path / "c.yaml"))
    assert clusters.minutes(found.time) == minutes
    assert found.sbatch == {"begin": "16:00", "nice": "5"}
    (tmp_path / "s.yaml").write_text(f"base: paper/mnist\nshape: {{time: {time}}}\nfixed: {{stop: 40 updates}}\n")
    shape = specs.load(tmp_path / "s.yaml").shape
    assert shape.time is not None
    assert clusters.minutes(shape.time) == minutes


def test_the_time_limits_of_our_own_files_are_those_that_they_show() -> None:
    assert clusters.minutes(clusters.load("slurm_gpu").time) == 240
    sweeps = clusters.sections.presets_folder() / "sweeps"
    assert specs.load(sweeps / "mnist_lambda.yaml").shape.time == "2:00:00"
