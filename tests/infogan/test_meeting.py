"""What processes have to say to each other before they train."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from infogan.meeting import Meeting, difference
from shards.errors import UserError

GPUS = [("node7", "a"), ("node7", "b"), ("node7", "a"), ("node7", "b"), ("node8", "c"), ("node8", "d")]


def refuse_shared(found: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="a"))
    meeting = Meeting(0, len(found))
    monkeypatch.setattr(meeting, "exchange", lambda *arguments: [json.dumps(one) for one in found])
    meeting.refuse_shared_gpus(torch.device("cuda", 0))


def test_more_processes_than_gpus_are_refused_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"^processes: 4 processes, 2 GPUs on node7; start 2 processes there$"):
        refuse_shared(GPUS, monkeypatch)
    refuse_shared(GPUS[:2] + GPUS[4:], monkeypatch)


def test_one_process_talks_to_nobody() -> None:
    meeting = Meeting(0, 1)
    assert meeting.exchange("alone") == ["alone"]
    meeting.same("config", {"batch": 8})
    meeting.refuse_shared_gpus(torch.device("cpu"))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([{"a": 1, "b": 2}, {"a": 1, "b": 3}], "config: b is 2 on rank 0 and 3 on rank 1; "),
        ([{"a": "x"}, {"a": "y"}, {"a": "x"}], "config: a is x on ranks 0 and 2 and y on rank 1; "),
        ([{"a": 1}] * 6 + [{}], "config: a is 1 on ranks 0, 1, 2, 3 and others and absent on rank 6; "),
    ],
)
def test_the_first_difference_is_named_with_the_ranks(values: list[dict[str, Any]], said: str) -> None:
    assert difference("config", values).startswith(said)
