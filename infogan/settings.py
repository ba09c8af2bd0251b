"""From YAML files and dotted overrides to a checked `RunConfig`, remembering where each value came from.

A preset may name another with `extends:`; mappings merge key by key, and a key set to null removes what the base had
(`codes: {c2: null}`). OmegaConf reads and merges; what a component accepts is known only to its own dataclass, so
checking is done here, against the class that the component's `name` or `kind` picks.
"""

import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from infogan import deepspeed_file, plugins
from infogan.codes import KINDS, Code
from infogan.config import RunConfig, Stop, flatten
from infogan.networks import NETWORKS, Network
from infogan.objectives import OBJECTIVES, Objective
from infogan.registry import Registry, UnknownComponent
from infogan.sections import BUILDERS, Plain, build, checked, expect, presets_folder, read_yaml, section
from shards.errors import UserError


@dataclass(frozen=True)
class Settings:
    """A config with the source of each of its values: dotted path -> preset file or override."""

    config: RunConfig
    sources: dict[str, str]
    preset: str


def load(preset: str | Path, overrides: Sequence[str] = (), run: Path | None = None) -> Settings:
    """Read a preset (a file, or the name of one of ours such as `paper/mnist`), apply overrides, and check it all.

    `run`: the run that it is for, if one is known; it may know by which plugin a component came that is missing now.
    """
    path = find_preset(str(preset))
    layers = _read_with_bases(path, ())
    for override in overrides:
        layers.append((f"override {override}", _parse_override(override)))
    plain: Plain = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        plain = _merge(plain, layer)
        sources = {key: where for key, where in sources.items() if _has(plain, key)}
        sources |= {key: source for key in flatten(layer) if _has(plain, key)}
    config = from_plain(plain, plugins.recorded(run or path.parent))
    if config.deepspeed is not None:
        deepspeed_file.check(*deepspeed_file.read(config.deepspeed), config)
    return Settings(config, sources, path.stem)


def saved(path: Path) -> RunConfig:
    """The config that a run left in `path`: complete, and valid wherever the files of its training may be by now."""
    return from_plain(read_yaml(path), plugins.recorded(path.parent))


def from_plain(plain: Plain, recorded: Sequence[plugins.Record] = ()) -> RunConfig:
    """Check plain data, such as a saved config, as `load` does; `recorded`: the plugins that it was made with."""
    try:
        return typing.cast(RunConfig, build(RunConfig, plain, ""))
    except UnknownComponent as error:
        raise plugins.explained(error, recorded) from None


def find_preset(name: str) -> Path:
    """A file as named, or a preset that comes with the package: `paper/mnist`, `configs/paper/mnist.yaml`."""
    if Path(name).is_file():
        return Path(name)
    shipped = presets_folder()
    inside = name.removeprefix("configs/").removesuffix(".yaml") + ".yaml"
    if (shipped / inside).is_file():
        return shipped / inside
    names = sorted(str(path.relative_to(shipped)).removesuffix(".yaml") for path in presets(shipped))
    raise UserError(f"config {name!r}: no such file and no such preset; presets: {', '.join(names)}")


def presets(folder: Path) -> list[Path]:
    """The files in `folder` that describe runs: those with codes of their own or built on one that has."""
    return [path for path in sorted(folder.rglob("*.yaml")) if {"codes", "extends"} & set(read_yaml(path))]


def _registered(registry: Registry[Any], value: Any, path: str) -> Any:
    options = {name: registry.get(name) for name in registry}
    name = value.get("name") if isinstance(value, Mapping) else None
    if isinstance(name, str) and name not in options:
        raise UnknownComponent(
            registry.kind,
            name,
            f"{path}.name: {name!r}: must be one of {', '.join(sorted(options))}; one of your own comes with "
            "--plugin FILE",
        )
    return _component(options, "name", value, path)


def _component(options: Mapping[str, type], selector: str, value: Any, path: str) -> Any:
    expect(
        isinstance(value, Mapping) and selector in value,
        path,
        value,
        f"must be a mapping with a `{selector}`",
    )
    chosen = value[selector]
    if not isinstance(chosen, str) or chosen not in options:
        raise UserError(f"{path}.{selector}: {chosen!r}: must be one of {', '.join(sorted(options))}")
    return section(options[chosen], {key: item for key, item in value.items() if key != selector}, path)


BUILDERS[Code] = lambda value, path: _component(KINDS, "kind", value, path)
BUILDERS[Network] = lambda value, path: _registered(NETWORKS, value, path)
BUILDERS[Objective] = lambda value, path: _registered(OBJECTIVES, value, path)
BUILDERS[Stop] = lambda value, path: checked(lambda: Stop.parse(value), f"{path}: ")


def _read_with_bases(path: Path, seen: tuple[Path, ...]) -> list[tuple[str, Plain]]:
    """The layers that make up a preset, its deepest base first."""
    if path.resolve() in seen:
        raise UserError(f"config {path}: extends itself, by way of {' -> '.join(map(str, seen))}")
    plain = read_yaml(path)
    base = plain.pop("extends", None)
    if base is None:
        return [(str(path), plain)]
    beside = path.parent / str(base)
    base_path = beside if beside.is_file() else find_preset(str(base))
    base_path = Path(os.path.normpath(base_path))
    return [*_read_with_bases(base_path, (*seen, path.resolve())), (str(path), plain)]


def _parse_override(text: str) -> Plain:
    key, equals, _ = text.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"override {text!r}: must be key=value, as in optimizer.critic.lr=1e-4")
    try:
        return typing.cast(Plain, OmegaConf.to_container(OmegaConf.from_dotlist([text])))
    except (OmegaConfBaseException, yaml.YAMLError, ValueError, LookupError, RecursionError) as error:
        raise UserError(f"override {text!r}: {' '.join(str(error).split())}") from None


def _merge(base: Plain, layer: Plain) -> Plain:
    merged = dict(base)
    for key, value in layer.items():
        if value is None and isinstance(base.get(key), dict):
            del merged[key]
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = _merge(base[key], value)
        else:
            merged[key] = value
    return merged


def _has(plain: Plain, path: str) -> bool:
    node: Any = plain
    for key in path.split("."):
        if not isinstance(node, dict) or key not in node:
            return False
        node = node[key]
    return True
