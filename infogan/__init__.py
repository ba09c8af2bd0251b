"""InfoGAN (Chen et al. 2016, arXiv 1606.03657): interpretable codes, trained, resumed and measured exactly.

`infogan.load` opens a trained run or an exported model.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infogan.model import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch only when a model is asked for: the command line's help must not wait for it."""
    if name == "load":
        from infogan.model import load

        return load
    raise AttributeError(f"module 'infogan' has no attribute {name!r}")
