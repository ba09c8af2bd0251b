"""A trained model is the same from its run and from its export, and takes its codes by name or number."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import infogan
from infogan.codes import CategoricalPosterior, ContinuousPosterior
from infogan.model import Model
from infogan.pictures import curves, fixed_latents, grid, traversal_latents
from shards.errors import UserError


@pytest.fixture
def model(run: Path) -> Model:
    return infogan.load(run, device="cpu")


def test_run_and_export_give_the_same_images_to_the_bit(run: Path, tmp_path: Path) -> None:
    exported = infogan.load(run / "export", device="cpu")
    shutil.copytree(run, tmp_path / "bare", ignore=shutil.ignore_patterns("export"))
    bare = infogan.load(tmp_path / "bare", device="cpu")
    for opened in (infogan.load(run, device="cpu"), bare):
        assert torch.equal(opened.sample(16, seed=3), exported.sample(16, seed=3))
        images = exported.sample(5, seed=1)
        for name, posterior in opened.encode(images).items():
            other = exported.encode(images)[name]
            for field in vars(posterior):
                assert torch.equal(getattr(posterior, field), getattr(other, field))
        assert opened.origin.checkpoint_digest == exported.origin.checkpoint_digest
    assert exported.sample(16, seed=3).unique().numel() > 20


def test_an_export_needs_neither_run_nor_data(run: Path, tmp_path: Path) -> None:
    images = infogan.load(run, device="cpu").sample(4)
    moved = shutil.copytree(run / "export", tmp_path / "moved")
    shutil.move(run, tmp_path / "gone")
    config = json.loads((moved / "config.json").read_text())
    assert config["data"]["path"]
    assert torch.equal(infogan.load(moved, device="cpu").sample(4), images)


def test_a_checkpoint_without_its_data_says_what_is_missing(run: Path) -> None:
    shutil.rmtree(run / "export")
    with pytest.raises(UserError, match="nowhere is no finished data set"):
        infogan.load(run, data="nowhere")


def test_a_code_is_set_by_name_or_by_number(model: Model) -> None:
    by_name = model.sample(6, seed=5, kind=2, c1=-1.5)
    assert torch.equal(by_name, model.sample(6, seed=5, codes={0: 2, 1: -1.5}))
    assert torch.equal(by_name, model.sample(6, seed=5, codes={"kind": 2}, c1=-1.5))
    assert not torch.equal(by_name, model.sample(6, seed=5, kind=1, c1=-1.5))
    assert not torch.equal(by_name, model.sample(6, seed=6, kind=2, c1=-1.5))
    assert by_name.shape == (6, 1, 8, 8)
    assert by_name.dtype == torch.uint8


def test_what_is_not_set_stays_as_it_was_drawn(model: Model) -> None:
    """Setting a code to the very value that the seed draws for it changes nothing."""
    from infogan.randomness import generator

    drawn = model.codes.sample(1, generator(5, "latents/sample")).values
    same = model.sample(1, seed=5, kind=int(drawn["kind"]), c1=float(drawn["c1"]))
    assert torch.equal(same, model.sample(1, seed=5))


@pytest.mark.parametrize(
    ("codes", "said"),
    [
        ({"digit": 3}, r"code 'digit': this model has no such code; it has 0: kind, 1: c1, 2: c2"),
        ({3: 1}, r"code 3: this model has no such code; it has 0: kind, 1: c1, 2: c2"),
        ({-1: 1}, r"code -1: this model has no such code"),
        ({"kind": 3}, r"code kind=3: must be a category from 0 to 2"),
        ({"kind": -1}, r"code kind=-1: must be a category from 0 to 2"),
        ({"kind": 1.5}, r"code kind=1.5: must be a category from 0 to 2"),
        ({"kind": float("nan")}, r"code kind=nan: must be a category from 0 to 2"),
        ({"c1": float("nan")}, r"code c1=nan: must be a number from"),
        ({"c1": float("inf")}, r"code c1=inf: must be a number from"),
    ],
)
def test_a_code_or_category_that_is_not_there_is_refused(model: Model, codes: dict[Any, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        model.sample(2, codes=codes)


def test_encode_returns_one_posterior_per_code(model: Model) -> None:
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    found = model.encode(images, chunk=3)
    assert list(found) == ["kind", "c1", "c2"]
    kind, c1, c2 = found["kind"], found["c1"], found["c2"]
    assert isinstance(kind, CategoricalPosterior)
    assert kind.logits.shape == (7, 3)
    assert kind.mode.shape == (7,)
    assert isinstance(c1, ContinuousPosterior)
    assert isinstance(c2, ContinuousPosterior)
    assert c1.mean.shape == c1.std.shape == c2.mean.shape == (7,)
    assert torch.equal(c2.std, torch.ones(7))
    torch.testing.assert_close(model.encode(images[2:4])["c1"].mean, c1.mean[2:4])  # type: ignore[union-attr]


def test_the_model_card_has_every_code_and_runs_as_it_is_written(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (run / "export" / "README.md").read_text()
    for line in (
        "| kind | categorical | 0 to 2 |",
        "| c1 | continuous | -1 to 1 (traversals: -2 to 2) |",
        "| c2 | continuous |",
    ):
        assert line in card
    assert "| 1.099 |" in card
    assert "| -0.226 |" in card
    assert "| none |" in card
    digest = infogan.load(run, device="cpu").origin.checkpoint_digest
    assert digest in card
    code = card.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(run.parent)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["images"].shape == (8, 1, 8, 8)


@pytest.mark.parametrize("what", ["empty", "no such folder", "no metadata", "torn", "other codes"])
def test_what_is_no_model_is_named(run: Path, tmp_path: Path, what: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "odd"
    weights = folder / "generator.safetensors"
    if what != "no such folder":
        shutil.copytree(run / "export", folder)
    if what == "empty":
        shutil.rmtree(folder)
        folder.mkdir()
    elif what == "no metadata":
        save_file(load_file(weights), weights)
    elif what == "torn":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif what == "other codes":
        data = weights.read_bytes()
        weights.write_bytes(data.replace(b'\\"ways\\": 3', b'\\"ways\\": 4'))
    with pytest.raises(UserError, match=str(folder)):
        infogan.load(folder)


def test_a_finished_run_shows_itself(run: Path) -> None:
    names = {path.name for path in (run / "images").iterdir()}
    assert names >= {"samples.png", "traversal-kind.png", "traversal-c1.png", "traversal-c2.png", "curves.png"}
    # 10 x 10 tiles of 8 pixels, enlarged 7 times, 2 apart; 3 categories in 10 rows
    assert Image.open(run / "images" / "samples.png").size == (10 * 58 - 2, 10 * 58 - 2)
    assert Image.open(run / "images" / "traversal-kind.png").size == (3 * 58 - 2, 10 * 58 - 2)


def test_a_traversal_moves_one_code_and_nothing_else(model: Model) -> None:
    for name, column in (("c1", 6 + 3), ("kind", None)):
        latents, captions = traversal_latents(model.codes, name, rows=4, seed=0)
        table = latents.vector.view(4, len(captions), -1)
        moving = [column] if column is not None else [6, 7, 8]
        still = [i for i in range(table.shape[2]) if i not in moving]
        assert torch.equal(table[:, :, still], table[:, :1, still].expand(-1, len(captions), -1))
        assert not torch.equal(table[:, 0, moving], table[:, 1, moving])
    assert traversal_latents(model.codes, "c1", 1, 0)[0].values["c1"].tolist() == pytest.approx(
        np.linspace(-2, 2, 10).tolist()
    )
    assert traversal_latents(model.codes, "kind", 1, 0)[1] == ["0", "1", "2"]


def test_a_sample_grid_has_a_column_per_category_and_keeps_its_latents(model: Model) -> None:
    first, again = fixed_latents(model.codes, 20, 3), fixed_latents(model.codes, 20, 3)
    assert torch.equal(first.vector, again.vector)
    assert first.values["kind"].tolist() == [k % 10 % 3 for k in range(20)]


def test_a_grid_lays_images_out_row_by_row() -> None:
    images = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1) * 10
    pixels = np.asarray(grid(images, 3, gap=1))
    assert pixels.tolist() == [[0, 255, 10, 255, 20], [255] * 5, [30, 255, 40, 255, 255]]
    colour = torch.zeros(1, 3, 2, 2, dtype=torch.uint8)
    colour[0, 0] = 200
    assert np.asarray(grid(colour, 1, least_side=4)).shape == (4, 4, 3)


def test_curves_are_a_picture_also_where_there_is_little_to_draw() -> None:
    rows = [{"kimg": 1.0, "loss/generator": 1.0, "loss/critic": 1.0, "mi/a": 0.5}]
    for shown in ({"a": None}, {"a": 1.0}, {}):
        assert Image.open(BytesIO(curves(rows, shown))).size[0] > 500
