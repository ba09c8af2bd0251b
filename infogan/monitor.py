"""What a run shows of itself while it trains: log rows, progress, pictures, validation scores, and what it leaves."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from infogan import checkpoint as checkpoints
from infogan.config import ReaderKind, RunConfig
from infogan.evaluation import refresh, validation_score
from infogan.export import export
from infogan.health import complaints, overlaps
from infogan.model import Model
from infogan.pictures import curves, run_pictures
from infogan.tracking import Log, read_log
from shards import Dataset, Reader, atomic, open_reader

Say = Callable[[str], None]
BAR = "{percentage:3.0f}%|{bar}| {n:,.0f}/{total:,.0f} kimg [{elapsed}<{remaining}{postfix}]"
OVERLAP_IMAGES = 2000
SECONDS_BETWEEN_LINES = 10.0  # in a log file, which has no progress bar


@dataclass(frozen=True)
class Score:
    """The validation score by which the best checkpoint is chosen."""

    metric: str
    value: float
    higher_is_better: bool

    @classmethod
    def choose(cls, scores: Mapping[str, float]) -> "Score":
        """Accuracy of the first code that has one, else Frechet distance, else the first code's L_I."""
        for stem, higher_is_better in (("accuracy/", True), ("frechet", False), ("mi/", True)):
            for name, value in scores.items():
                if name.startswith(f"validation/{stem}"):
                    return cls(name, value, higher_is_better)
        return cls("validation/none", 0.0, True)

    def better_than(self, other: float) -> bool:
        return self.value > other if self.higher_is_better else self.value < other


class Monitor:
    """Writes what rank 0 has to tell. On other ranks `log` is None, and `report`, all they call, does nothing."""

    def __init__(
        self, run: Path, config: RunConfig, dataset: Dataset, reader: Reader, log: Log | None, kimg: float, say: Say
    ) -> None:
        self.run, self.config, self.dataset, self.log, self._say = run, config, dataset, log, say
        self._readers = {"train": reader}
        if log is not None and dataset.manifest.splits["validation"].samples:
            kind: ReaderKind = "remote" if dataset.remote or config.data.reader == "remote" else "indexed"
            self._readers["validation"] = open_reader(dataset, "validation", kind=kind, workers=0)
        self.codes = config.latent_codes()
        stop = config.stop.images(config.batch, dataset.manifest.splits["train"].samples)
        shown = log is not None and sys.stderr.isatty()
        self._bar = tqdm(total=stop / 1000, initial=kimg, disable=not shown, dynamic_ncols=True, bar_format=BAR)
        self._quiet_until = 0.0

    def report(self, row: Mapping[str, Any]) -> None:
        """Log a row, move the progress bar, and say what is going wrong."""
        if self.log is None:
            return
        self.log.write(row)
        if self._bar.disable and time.monotonic() >= self._quiet_until:
            self._say(f"{row['kimg']:g} kimg: {self._summary(row)}, {self._time_left(row)} left")
            self._quiet_until = time.monotonic() + SECONDS_BETWEEN_LINES
        self._bar.n = row["kimg"]
        self._bar.set_postfix_str(self._summary(row))
        for complaint in complaints(row, self.codes, self.config.objective):
            self._tell(f"{row['kimg']:g} kimg: {complaint}")
        if row["kimg"] >= self._bar.total:  # what follows can take minutes, and has no progress to show
            self._tell(f"{row['kimg']:g} kimg: trained; {self._still_to_do()}")

    def _still_to_do(self) -> str:
        """What the end of training consists of, in its order."""
        scoring = "scoring on the validation split" if "validation" in self._readers else "scoring"
        return ", ".join(["drawing pictures", *[scoring] * (self.config.eval.every_kimg is not None), "saving"])

    def _summary(self, row: Mapping[str, Any]) -> str:
        parts = [f"{row['time/images_per_s']:,.0f} images/s"]
        for name, ceiling in self.codes.ceilings().items():
            shown = f"/{ceiling:.2f}" if name in self.codes.categorical and ceiling is not None else ""
            parts.append(f"L_I {name} {row[f'mi/{name}']:.2f}{shown}")
        return ", ".join([*parts, f"G {row['loss/generator']:.2f}", f"D {row['loss/critic']:.2f}"])

    def _time_left(self, row: Mapping[str, Any]) -> str:
        """Until the run's stop, at the speed of now; the bar has it from tqdm."""
        seconds = max(0.0, self._bar.total - row["kimg"]) * 1000 / row["time/images_per_s"]
        hours, minutes = divmod(round(seconds / 60), 60)
        return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"

    def picture(self, model: Model) -> None:
        """Sample grid and traversals under the name of this moment."""
        _write_pictures(self.run, model, f"-{checkpoints.folder_name(round(model.origin.kimg * 1000))}")

    def validate(self, model: Model) -> Score:
        """Score on the validation split, log it, warn of codes that do one thing, and refresh the report's page."""
        scores = validation_score(model, self.dataset, self._readers)
        assert self.log is not None
        self.log.write({"kimg": model.origin.kimg, "update": model.origin.update, **scores})
        images = self._validation_images()
        for complaint in overlaps(model.encode(images)) if len(images) > 1 else []:
            self._tell(f"{model.origin.kimg:g} kimg: {complaint}")
        refresh(model, self.dataset, scores, self.run)
        return Score.choose(scores)

    def _validation_images(self) -> Tensor:
        """The first validation images, uint8 [n, C, H, W]; none where the split is empty."""
        if "validation" not in self._readers:
            return torch.empty(0)
        reader = self._readers["validation"]
        return reader.gather(np.arange(min(OVERLAP_IMAGES, reader.samples))).images

    def log_length(self) -> int:
        """Bytes of the log that are on the disk."""
        assert self.log is not None
        return self.log.length()

    def close(self) -> None:
        self._bar.close()
        if "validation" in self._readers:
            self._readers["validation"].close()
        if self.log is not None:
            self.log.close()

    def _tell(self, line: str) -> None:
        with tqdm.external_write_mode():
            self._say(line)


def final_products(run: Path, model: Model) -> None:
    """Write a finished run's pictures and curves, and export its model."""
    _write_pictures(run, model, "")
    rows = [row for row in read_log(run) if "loss/critic" in row]
    atomic.write_bytes(run / "images" / "curves.png", curves(rows, model.codes.ceilings()))
    export(model, run / "export", rows[-1])


def _write_pictures(run: Path, model: Model, suffix: str) -> None:
    for name, data in run_pictures(model.generator, model.codes, model.image_range, model.config.seed).items():
        atomic.write_bytes(run / "images" / f"{name}{suffix}.png", data)
