"""Checkpoints give back to the bit what was saved, are found by name and time, and are thrown away with care."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from infogan import checkpoint as checkpoints
from infogan.monitor import Score
from infogan.trainer import Trainer
from shards.errors import UserError


def modules(seed: int = 0) -> dict[str, nn.Module]:
    torch.manual_seed(seed)
    return {name: nn.Conv2d(3, 4, 4).to(memory_format=torch.channels_last) for name in ("generator", "critic", "ema")}  # type: ignore[call-overload]


def state(images: int, best: str | None = None) -> dict[str, object]:
    return {"images": images, "best": {"folder": best} if best else None}


def save(run: Path, images: int, best: str | None = None) -> Path:
    return checkpoints.save(run, modules(images), {"critic/weight/step": torch.tensor(3.0)}, state(images, best))


def test_what_is_saved_is_read_back_to_the_bit(tmp_path: Path) -> None:
    folder = save(tmp_path, 12_345)
    assert folder == tmp_path / "checkpoints" / "kimg-000012.345"
    found = checkpoints.open_checkpoint(folder)
    assert found.images == 12_345
    fresh = modules(1)["generator"]
    found.load_into("generator", fresh)
    for name, value in modules(12_345)["generator"].state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value)
    assert fresh.weight.is_contiguous(memory_format=torch.channels_last)  # type: ignore[call-overload, operator]


def test_an_optimizer_goes_on_to_the_bit(tmp_path: Path) -> None:
    """With weights in channels-last memory, whose moments fused Adam walks through side by side with them."""

    def step(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
        module(x.to(memory_format=torch.channels_last)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    module = modules()["critic"]
    optimizer = torch.optim.Adam(module.parameters(), 1e-2, fused=True)
    step(module, optimizer, 1)
    saved = {"critic": module, "generator": module, "ema": module}
    tensors = checkpoints.optimizer_tensors(optimizer, module, "critic")
    assert set(tensors) == {f"critic/{p}/{w}" for p in ("weight", "bias") for w in ("exp_avg", "exp_avg_sq", "step")}
    found = checkpoints.open_checkpoint(checkpoints.save(tmp_path, saved, tensors, state(8)))
    step(module, optimizer, 2)
    resumed = modules(5)["critic"]
    found.load_into("critic", resumed)
    again = torch.optim.Adam(resumed.parameters(), 1e-2, fused=True)
    checkpoints.load_optimizer(again, resumed, "critic", found.tensors("optimizer"))
    step(resumed, again, 2)
    for name, value in module.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_names_sort_by_time_and_no_two_moments_share_one() -> None:
    assert [checkpoints.folder_name(n) for n in (0, 128, 640_000, 640_001, 1_234_567_890)] == [
        "kimg-000000", "kimg-000000.128", "kimg-000640", "kimg-000640.001", "kimg-1234567.890",
    ]  # fmt: skip


def test_a_checkpoint_is_found_as_latest_best_or_by_its_kimg(tmp_path: Path) -> None:
    save(tmp_path, 64_000)
    save(tmp_path, 9_600)
    save(tmp_path, 128_128, best="kimg-000009.600")
    for which, images in (("latest", 128_128), ("best", 9_600), ("64", 64_000), ("64.0", 64_000), ("128.128", 128_128)):
        assert checkpoints.find(tmp_path, which).images == images
    for which in ("65", "newest", "-64", "nan", ""):
        with pytest.raises(UserError, match=r"no checkpoint .*say latest, best or one of these kimg: 9.6, 64, 128.128"):
            checkpoints.find(tmp_path, which)
    with pytest.raises(UserError, match="it has no checkpoint yet"):
        checkpoints.find(tmp_path / "other", "latest")
    assert checkpoints.latest(tmp_path / "other") is None


def test_the_best_is_the_latest_where_nothing_was_scored(tmp_path: Path) -> None:
    save(tmp_path, 1000)
    assert checkpoints.find(tmp_path, "best").images == 1000


def test_all_but_the_newest_and_what_they_call_the_best_are_thrown_away(tmp_path: Path) -> None:
    called_best = {4000: "kimg-000002", 5000: "kimg-000005"}
    for images in (1000, 2000, 3000, 4000, 5000):
        folder = save(tmp_path, images)
        state = json.loads((folder / "state.json").read_text())
        best = called_best.get(images)
        (folder / "state.json").write_text(json.dumps(state | {"best": {"folder": best} if best else None}))
    (tmp_path / "checkpoints" / "notes").mkdir()
    checkpoints.prune(tmp_path, 2)
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["kimg-000002", "kimg-000004", "kimg-000005", "notes"]


def test_a_best_checkpoint_that_is_gone_is_no_best(tmp_path: Path) -> None:
    folder = save(tmp_path, 1000)
    assert checkpoints.best_of(tmp_path, {"best": {"folder": folder.name}}) == {"folder": folder.name}
    assert checkpoints.best_of(tmp_path, {"best": {"folder": "kimg-000007"}}) is None
    assert checkpoints.best_of(tmp_path, {"best": None}) is None


def test_a_checkpoint_of_another_format_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path, 1000)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 2}))
    with pytest.raises(UserError, match="format 2, this version reads 1; use the version that wrote it"):
        checkpoints.open_checkpoint(folder)


@pytest.mark.parametrize(
    "other", [nn.Conv2d(3, 5, 4), nn.Conv2d(3, 4, 4, bias=False), nn.Sequential(nn.Conv2d(3, 4, 4))],
    ids=["shape", "missing", "names"],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_and_none_is_loaded(tmp_path: Path, other: nn.Module) -> None:
    before = {name: value.clone() for name, value in other.state_dict().items()}
    found = checkpoints.open_checkpoint(save(tmp_path, 1000))
    with pytest.raises(UserError, match="tensors do not fit the config's network or codes"):
        found.load_into("generator", other)
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_the_best_checkpoint_is_best_by_the_number_that_there_is_now() -> None:
    """The data set's extractor may come to be trained meanwhile: then distances take the place of nats."""
    trainer = Trainer.__new__(Trainer)
    trainer.best = None
    told = [
        ("mi/kind", 1.2, True),
        ("mi/kind", 1.1, True),
        ("frechet2k[x]", 40.0, False),
        ("frechet2k[x]", 41.0, False),
    ]
    chosen = []
    for number, (name, value, higher) in enumerate(told, 1):
        trainer.images = 1000 * number
        trainer._note_score(Score(f"validation/{name}", value, higher))
        chosen.append(trainer.best["folder"])
    first, third = checkpoints.folder_name(1000), checkpoints.folder_name(3000)
    assert chosen == [first, first, third, third]
