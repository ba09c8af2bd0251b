"""Progress bars of the long measurements, on standard error."""

import sys
from collections.abc import Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


def progress(steps: Sequence[T], what: str) -> Iterator[T]:
    """Iterate over `steps`; a bar appears on a terminal once it has taken a second, and leaves no trace."""
    yield from tqdm(steps, desc=what, leave=False, delay=1, disable=not sys.stderr.isatty(), dynamic_ncols=True)
