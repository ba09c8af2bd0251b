"""Makes torchvision importable beside a CPU build of torch.

The wheel of torchvision on PyPI is compiled for CUDA. Beside a torch without CUDA its compiled library does
not load, and its import then fails because it registers shape functions for two operators, `nms` and `qnms`,
that were never defined. Declaring the two (without an implementation) is enough for transforms, datasets,
grids and the Inception network; `torchvision.ops.nms` and torchvision's own PNG and JPEG functions stay
unusable, and we use neither.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_declared: list[Any] = []  # the library's declarations vanish with the object, so it lives as long as the module


def ensure_importable() -> None:
    """Call before the first import of torchvision, in every module that imports it. Cheap, and safe to
    repeat."""
    if _declared or "torchvision" in sys.modules or torch.version.cuda is not None:
        return
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if not missing:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in missing:
        library.define(_SCHEMAS[name])
    _declared.append(library)
