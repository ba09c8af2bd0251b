"""Where raw files usually lie, how torchvision fetches them, and the one line that is said when they are missing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shards import location
from shards.errors import DataError, UserError


def find(root: Path, folders: Sequence[str], names: Sequence[str]) -> Path | None:
    """The first of `names` (a file, or a folder where the name ends in /) in the first of `folders` that has one."""
    for folder in folders:
        for name in names:
            path = root / folder / name
            if path.is_dir() if name.endswith("/") else path.is_file():
                return path
    return None


def missing(root: Path, lacking: Sequence[str], origin: str, otherwise: str = "") -> DataError:
    """What to fetch, from where, and where to put it.

    Args:
        lacking: what was not found.
        origin: the page or address that offers it.
        otherwise: another remedy, such as `or add --download`.
    """
    state = "lacks" if root.is_dir() else "is no folder, and so lacks"
    return DataError(
        f"{root} {state} {' and '.join(lacking)}: fetch from {origin} into that folder, or give the right one as --path"
        + (f", {otherwise}" if otherwise else "")
    )


def by_torchvision(dataset: str, root: str, calls: Sequence[dict[str, Any]], by_hand: str) -> None:
    """Downloads by a dataset class of torchvision's.

    Args:
        dataset: the name of the class.
        calls: the keyword arguments of each of its constructions, without root and download.
        by_hand: what to do instead where that fails.

    Raises:
        UserError: the download failed, or INFOGAN_OFFLINE forbids it.
    """
    if location.network_forbidden():
        raise UserError(f"INFOGAN_OFFLINE is set, so nothing is downloaded into {root}: {by_hand}, or unset it")
    from shards import torchvision_ops

    torchvision_ops.ensure_importable()
    import torchvision.datasets  # slow, and needed for a download only

    try:
        for call in calls:
            getattr(torchvision.datasets, dataset)(root, download=True, **call)
    except (OSError, RuntimeError, ImportError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the download by torchvision into {root} failed ({reason}): {by_hand}") from error
