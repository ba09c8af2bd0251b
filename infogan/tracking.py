"""What a run says about itself: `metrics.jsonl` is the truth, TensorBoard is a copy of it.

Statistics are summed on the device and read once per interval. After a kill the log is cut back to the length that
the checkpoint remembers, so that it never holds a line twice. Keys under `time/` are the only ones in which two equal
runs may differ.

A row of training holds `kimg`, `update` and `epoch`; `lambda_share`, what `objective.ramp_kimg` multiplied lambda by
in the last update; and, as means since the row before, `loss/critic` and `loss/generator`, the adversarial ones alone;
`score/real` and `score/fake`, sigmoids of D's logits; `diversity/real` and `diversity/fake`, how much images of a batch
differ; `penalty/r1` where there is one; per code `mi/<code>` in nats, with `mi/<code>/ceiling`; per continuous code
`mi/<code>/best_std` and `mse/<code>`; in fp16 `skipped`. A row of scores is `infogan.evaluation.validation_score`'s.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shards.atomic import explained
from shards.errors import UserError


class Means:
    """Running sums of scalar statistics on their device, so that adding one waits for nothing."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._sum: Tensor | None = None
        self.count = 0

    def add(self, statistics: Mapping[str, Tensor]) -> None:
        """Add one update's scalars; the names must be the same every time."""
        values = torch.stack([value.detach().double() for value in statistics.values()])
        self._names = list(statistics)
        self._sum = values if self._sum is None else self._sum + values
        self.count += 1

    def state(self, gather: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The sums of every process, JSON-able; a double survives JSON to the bit.

        `gather` makes [processes, n] of each process's [n].
        """
        sums = [] if self._sum is None else gather(self._sum).tolist()
        return {"count": self.count, "names": self._names, "sums_by_rank": sums}

    def load(self, state: Mapping[str, Any], rank: int, world: int, device: torch.device) -> None:
        """Take this rank's sums; where the number of processes changed, each takes the mean, whose mean is the same."""
        self._names, self.count = list(state["names"]), state["count"]
        if self.count:
            sums = torch.tensor(state["sums_by_rank"], dtype=torch.float64, device=device)
            self._sum = sums[rank] if len(sums) == world else sums.mean(dim=0)

    def take(self, reduce: Any) -> dict[str, float]:
        """The means since the last call, passed through `reduce` (a mean over processes), and start again."""
        assert self._sum is not None
        means = dict(zip(self._names, reduce(self._sum / self.count).tolist(), strict=True))
        self._names, self._sum, self.count = [], None, 0
        return means


class Log:
    """Appends rows to `metrics.jsonl` and copies their numbers to TensorBoard."""

    def __init__(self, run: Path, length: int, kimg: float) -> None:
        """Continue the log of `run`, cut back to `length` bytes, which was its length at `kimg`."""
        from torch.utils.tensorboard import SummaryWriter

        self.path = run / "metrics.jsonl"
        with explained(self.path):
            self._file = open(self.path, "ab")  # noqa: SIM115  # held open while the run lasts
            if self._file.tell() < length:
                raise UserError(
                    f"{self.path}: {self._file.tell()} bytes, but the checkpoint was saved when it had {length}; "
                    "put the log back, or take the weights into a new run with --from"
                )
            self._file.truncate(length)
            self._file.seek(length)
            self._board = SummaryWriter(str(run / "tensorboard"), purge_step=round(kimg * 1000) + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        with explained(self.path):
            self._file.write(json.dumps({name: _finite(value) for name, value in row.items()}).encode() + b"\n")
            self._file.flush()
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("kimg", "update"):
                self._board.add_scalar(name, value, round(row["kimg"] * 1000))

    def length(self) -> int:
        """Bytes written so far, all of them on the disk when this returns."""
        with explained(self.path):
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        self._board.close()
        self._file.close()


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for both."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_log(run: Path) -> list[dict[str, Any]]:
    """All rows of a run's `metrics.jsonl`; a last line that a kill tore is left out."""
    path = run / "metrics.jsonl"
    return list(_whole_rows(path)) if path.is_file() else []


def _whole_rows(path: Path) -> Iterable[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        if line.endswith(b"\n"):
            try:
                yield json.loads(line)
            except ValueError:
                raise UserError(f"{path}: line {number} is no JSON; restore the file, or remove that line") from None
