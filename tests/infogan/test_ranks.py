"""What a launcher says in the environment, and what it cannot mean."""

import pytest

from infogan import ranks
from shards.errors import UserError

GOOD = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "node7", "MASTER_PORT": "29500"}


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)


def say(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> ranks.Ranks | None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return ranks.told()


def test_what_a_launcher_says_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks.told() is None
    assert say(monkeypatch, GOOD) == ranks.Ranks(4, 3, 1, "node7", 29500)


def test_a_process_alone_needs_to_be_told_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert say(monkeypatch, {"WORLD_SIZE": "1"}) == ranks.Ranks()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is not set, but WORLD_SIZE is 4: it must .*; infogan train"):
        say(monkeypatch, {key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("WORLD_SIZE", "four", "must be a whole number from 1 to"),
        ("WORLD_SIZE", "0", "must be a whole number from 1 to"),
        ("RANK", "4", "must be a whole number from 0 to 3, since it counts from 0 and WORLD_SIZE is 4"),
        ("RANK", "-1", "must be a whole number from 0 to 3"),
        ("RANK", "", "must be a whole number from 0 to 3"),
        ("LOCAL_RANK", "x", "must be a whole number from 0 to 3"),
        ("MASTER_ADDR", " ", "must name the machine of rank 0"),
        ("MASTER_PORT", "0", "must be a whole number from 1 to 65535"),
        ("MASTER_PORT", "99999", "must be a whole number from 1 to 65535"),
    ],
)
def test_nonsense_is_named_with_its_value_and_the_rule(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, rule: str
) -> None:
    with pytest.raises(UserError) as caught:
        say(monkeypatch, GOOD | {name: value})
    assert str(caught.value).startswith(f"{name} {value!r}: {rule}")


def test_a_rank_without_others_is_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        UserError, match=r"^RANK '1': must be a whole number from 0 to 0, since WORLD_SIZE, which is not"
    ):
        say(monkeypatch, {"RANK": "1"})
