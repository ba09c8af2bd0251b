"""Reading samples by number: from memory, from the tars, or from a URL.

All readers keep one contract: `gather(indices)` returns those samples of the split, in that order, as a
`Batch` on the reader's device. Images stay uint8. None hands out anything from a shard that was not
compared with the manifest.

- `ResidentReader` decodes the split once, in parallel, into one tensor on the device, or in the host's memory
  where the device has no room; a batch is one gather.
- `IndexedReader` reads each sample from its tar by its offset and decodes it in worker processes, when it is
  asked for.
- `RemoteReader` streams shards into a cache on this machine ahead of need, and reads them there as the indexed one
  does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from shards.manifest import Manifest
from shards.plan import Plan


@dataclass
class Batch:
    """Samples.

    Attributes:
        images: uint8 [n, C, H, W] on the reader's device.
        labels: int64 [n] on the reader's device; -1 where a sample has none.
        indices: int64 [n], the samples' numbers in the split.
        factors: float32 [n, F] on the reader's device, in the manifest's order (a categorical factor as its
            index); None
            for a set without factors.
    """

    images: torch.Tensor
    labels: torch.Tensor
    indices: NDArray[np.int64]
    factors: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.indices)


class Reader(Protocol):
    """A split whose samples can be asked for by number.

    Attributes:
        samples: how many there are.
        device: where batches come to lie.
        manifest: the data set's.
        prefetch: whether it pays to gather the next batch while this one is used.
    """

    samples: int
    device: torch.device
    manifest: Manifest
    prefetch: bool

    def gather(self, indices: NDArray[np.int64]) -> Batch:
        """The samples of these numbers, in this order.

        Raises:
            DataError: a sample that cannot be decoded.
        """
        ...

    def expect(self, plan: Plan, position: int, stop: int | None) -> None:
        """Hears where the stream that reads from it stands.

        Args:
            plan: the order of the samples.
            position: where in it the next batch begins.
            stop: where the stream ends; None for no end.
        """
        ...

    def close(self) -> None:
        """Ends worker processes and closes files. The reader is of no use afterwards."""
        ...
