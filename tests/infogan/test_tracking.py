"""The log is the truth: it never holds a line twice, and a line that a kill tore is no line."""

import json
from pathlib import Path

import pytest
import torch

from infogan.interruption import Interruption
from infogan.tracking import Log, Means, read_log
from shards.errors import UserError


def row(kimg: float) -> dict[str, float]:
    return {"kimg": kimg, "update": kimg * 10, "loss/critic": kimg / 3}


def test_the_log_is_cut_back_to_where_the_checkpoint_was(tmp_path: Path) -> None:
    log = Log(tmp_path, 0, 0.0)
    log.write(row(1))
    length = log.length()
    log.write(row(2))
    log.close()
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"kimg": 3, "upd')
    again = Log(tmp_path, length, 1.0)
    again.write(row(2))
    again.close()
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [row(1), row(2)]


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kimg": 1}\n{"kimg": 2}\n{"kimg": 3')
    assert read_log(tmp_path) == [{"kimg": 1}, {"kimg": 2}]
    assert read_log(tmp_path / "nowhere") == []


def test_a_log_shorter_than_the_checkpoint_remembers_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kimg": 1}\n')
    with pytest.raises(UserError, match=r"metrics.jsonl: 12 bytes, but the checkpoint was saved when it had 100; put"):
        Log(tmp_path, 100, 1.0)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"kimg": 1}\n'


def test_means_are_of_an_interval_and_survive_a_stop_to_the_bit() -> None:
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    whole, first, second = Means(), Means(), Means()
    for value in values:
        whole.add({"a": value, "b": -value})
    for value in values[:3]:
        first.add({"a": value, "b": -value})
    state = json.loads(json.dumps(first.state(lambda sums: sums[None])))
    second.load(state, 0, 1, torch.device("cpu"))
    for value in values[3:]:
        second.add({"a": value, "b": -value})
    expected = whole.take(lambda x: x)
    assert second.take(lambda x: x) == expected
    assert expected["a"] == pytest.approx(values.double().mean().item(), rel=1e-12)
    assert whole.state(lambda sums: sums[None]) == {"count": 0, "names": [], "sums_by_rank": []}
    whole.add({"a": torch.tensor(5.0)})
    assert whole.take(lambda x: x) == {"a": 5.0}


def test_each_process_gets_its_own_sums_back_and_other_processes_the_mean() -> None:
    state = {"count": 2, "names": ["a"], "sums_by_rank": [[1.0], [5.0]]}

    def mean_of(rank: int, world: int) -> float:
        means = Means()
        means.load(state, rank, world, torch.device("cpu"))
        return means.take(lambda x: x)["a"]

    assert [mean_of(rank, 2) for rank in (0, 1)] == [0.5, 2.5]
    assert [mean_of(rank, 4) for rank in range(4)] == [1.5] * 4


def test_a_log_that_was_cut_back_knows_its_length(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"0123456789" * 8)
    log = Log(tmp_path, 16, 0.0)
    assert log.length() == 16
    log.write({"kimg": 1.0, "loss": float("nan")})
    assert log.length() == (tmp_path / "metrics.jsonl").stat().st_size
    log.close()
    assert (tmp_path / "metrics.jsonl").read_bytes()[16:] == b'{"kimg": 1.0, "loss": null}\n'


def test_a_signal_is_noted_and_the_handlers_before_are_put_back() -> None:
    import os
    import signal

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Interruption() as interruption:
        assert interruption.signal_name is None
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.signal_name == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.signal_name == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
