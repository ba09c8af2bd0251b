"""Sections of YAML files become checked dataclasses; a message names path, value, rule and remedy. Knows no torch.

What a section accepts is known to its own dataclass: its fields' types are read here, its ranges are checked in its
`__post_init__`.
"""

import io
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from shards.errors import UserError

Plain = dict[str, Any]

_SEXAGESIMAL = re.compile(r"\d:\d")

BUILDERS: dict[Any, Callable[[Any, str], Any]] = {}
"""Types that more than their annotations are needed to build: each by a function of (value, path)."""


def presets_folder() -> Path:
    """Where our presets lie: in the installed package, or at the top of the source tree that this file belongs to."""
    installed = Path(__file__).parent / "configs"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "configs"


def build(kind: Any, value: Any, path: str) -> Any:
    """Make a value of type `kind` from plain data; a UserError names the path, the value, the rule and the remedy."""
    if kind in BUILDERS:
        return BUILDERS[kind](value, path)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        kinds = [option for option in get_args(kind) if option is not type(None)]
        return build(kinds[0], value, path)
    if origin is dict:
        expect(isinstance(value, Mapping), path, value, "must be a mapping from names to settings")
        return {str(key): build(get_args(kind)[1], item, _join(path, key)) for key, item in value.items()}
    if origin is tuple and get_args(kind)[1:] == (Ellipsis,):
        expect(isinstance(value, list | tuple), path, value, "must be a list")
        return tuple(build(get_args(kind)[0], item, path) for item in value)
    if origin is tuple:
        length = len(get_args(kind))
        expect(
            isinstance(value, list | tuple) and len(value) == length,
            path,
            value,
            f"must be a list of {length}",
        )
        return tuple(build(item_kind, item, path) for item_kind, item in zip(get_args(kind), value, strict=True))
    if is_dataclass(kind):
        return section(kind, value, path)  # type: ignore[arg-type]
    if origin is Literal:
        expect(value in get_args(kind), path, value, f"must be one of {', '.join(get_args(kind))}")
        return value
    return _scalar(kind, value, path)


def section(kind: type, value: Any, path: str) -> Any:
    """The dataclass `kind` from a mapping of its fields."""
    expect(isinstance(value, Mapping), path, value, "must be a mapping")
    hints = typing.get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}
    for key in value:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
            raise UserError(f"{_join(path, key)}: unknown setting; {hint}")
    for name, f in known.items():
        if f.default is MISSING and f.default_factory is MISSING and name not in value:
            raise UserError(
                f"{_join(path, name)}: missing; it has no default, set it in the config or as {_join(path, name)}=..."
            )
    made = {key: build(hints[key], item, _join(path, key)) for key, item in value.items()}
    return checked(lambda: kind(**made), f"{path}." if path else "")


def _scalar(kind: type, value: Any, path: str) -> Any:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UserError(f"{path}: a number of {len(str(abs(value)))} digits: must be below 2**63")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
    expect(type(value) is kind, path, value, f"must be {names[kind]}")
    return value


def checked(make: Callable[[], Any], prefix: str) -> Any:
    """What `make` makes; what a range check says becomes a UserError, `prefix` before it."""
    try:
        return make()
    except ValueError as error:
        raise UserError(f"{prefix}{error}") from None


def expect(holds: bool, path: str, value: Any, rule: str) -> None:
    """Raise a UserError about the value at `path` unless the rule holds."""
    if not holds:
        raise UserError(f"{path or 'config'}: {value!r}: {rule}")


def read_yaml(path: Path) -> Plain:
    """A YAML file of ours, a mapping, with numbers such as 1e-4 read as numbers."""
    try:
        plain = OmegaConf.to_container(_loaded(path))
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"config {path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, dict):
        raise UserError(f"config {path}: must be a mapping of settings")
    return typing.cast(Plain, plain)


def _loaded(path: Path) -> Any:
    """A YAML file in which `4:00:00` is a word. YAML 1.1 has it for a number to the base of 60, 14400, which nobody
    means and SLURM would take for minutes."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text, Loader=yaml.SafeLoader) if _SEXAGESIMAL.search(text) else None
    if root is None or not _as_words(root, set()):
        return OmegaConf.load(path)
    return OmegaConf.load(io.StringIO(yaml.serialize(root)))


def _as_words(node: yaml.Node, met: set[int]) -> bool:
    """Make a word of each number that is written with a colon; whether there was one."""
    if isinstance(node, yaml.ScalarNode):
        number = node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float") and ":" in node.value
        node.tag, node.style = ("tag:yaml.org,2002:str", "'") if number else (node.tag, node.style)
        return number
    if id(node) in met:  # an alias may lead back to where it is
        return False
    met.add(id(node))
    parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    found = [_as_words(part, met) for part in parts]  # all of them
    return any(found)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
