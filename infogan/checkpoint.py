"""Checkpoints: folders that appear whole, hold no pickle, and are checked before they are believed.

`checkpoints/kimg-000640/` holds generator, critic and ema (safetensors, one tensor per parameter name), optimizer
(safetensors: `<phase>/<parameter name>/exp_avg` and so on), `state.json` (where training stands) and `manifest.json`
(sha256 of each of the others). Its digest is the sha256 of that manifest.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from shards import atomic
from shards.errors import UserError

FORMAT = 1
FILES = ("generator.safetensors", "critic.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json")
NAME = re.compile(r"kimg-(\d{6,}(?:\.\d+)?)")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint on disk whose files have the hashes that its manifest states."""

    folder: Path
    state: dict[str, Any]
    digest: str

    @property
    def images(self) -> int:
        """Images seen when it was saved."""
        return int(self.state["images"])

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of `generator`, `critic`, `ema` or `optimizer`, on the CPU."""
        path = self.folder / f"{name}.safetensors"
        try:
            return load_tensors(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{path}: cannot be read: {error}; delete the folder to go on from the checkpoint before it"
            ) from None

    def load_into(self, name: str, module: nn.Module) -> None:
        """Copy the weights saved as `name` into `module`, which must have the same parameters."""
        tensors = self.tensors(name)
        own = module.state_dict()
        wrong = [
            key
            for key in own.keys() | tensors.keys()
            if key not in own or key not in tensors or own[key].shape != tensors[key].shape
        ]
        if wrong:
            raise UserError(
                f"{self.folder / name}.safetensors: {len(wrong)} tensors do not fit the config's network or codes "
                f"(first: {sorted(wrong)[0]}); use the config that the weights were trained with"
            )
        module.load_state_dict(tensors)


def folder_name(images: int) -> str:
    """`kimg-000640` for 640,000 images; a fraction of a kimg is kept, so that no two moments share a name."""
    whole, rest = divmod(images, 1000)
    return f"kimg-{whole:06d}" + (f".{rest:03d}" if rest else "")


def save(
    run: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, Tensor], state: Mapping[str, Any]
) -> Path:
    """Write a checkpoint of `state["images"]`; it stands under its final name only when all of it is on the disk."""
    target = run / "checkpoints" / folder_name(int(state["images"]))
    contents = {f"{name}.safetensors": save_tensors(_on_cpu(module.state_dict())) for name, module in modules.items()}
    contents["optimizer.safetensors"] = save_tensors(_on_cpu(optimizers))
    contents["state.json"] = json.dumps({"format": FORMAT, **state}, indent=1).encode()
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    contents["manifest.json"] = json.dumps({"format": FORMAT, "sha256": hashes}, indent=1).encode()
    with atomic.folder(target, replace=True) as beside:
        for name, data in contents.items():
            (beside / name).write_bytes(data)
    return target


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint after checking every file against its manifest."""
    try:
        text = (folder / "manifest.json").read_bytes()
        manifest = json.loads(text)
        hashes = {name: str(manifest["sha256"][name]) for name in FILES}
        for name, expected in hashes.items():
            found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if found != expected:
                raise UserError(
                    f"checkpoint {folder}: {name} is damaged (sha256 {found[:12]}, the manifest says {expected[:12]}); "
                    "delete the folder to go on from the checkpoint before it"
                )
        state = json.loads((folder / "state.json").read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"checkpoint {folder}: not a whole checkpoint of this program ({error}); "
            "delete the folder to go on from the checkpoint before it"
        ) from None
    if manifest.get("format") != FORMAT or state.get("format") != FORMAT:
        raise UserError(
            f"checkpoint {folder}: format {manifest.get('format')}, this version reads {FORMAT}; "
            "use the version that wrote it"
        )
    return Checkpoint(folder, state, hashlib.sha256(text).hexdigest())


def digest_of(folder: Path) -> str:
    """The digest of a checkpoint, whose files are not looked at; `absent` where none is seen."""
    try:
        return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    except OSError:
        return "absent"


def folders(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, by name alone."""
    parent = run / "checkpoints"
    named = [path for path in parent.iterdir() if NAME.fullmatch(path.name)] if parent.is_dir() else []
    return sorted(named, key=lambda path: float(path.name.removeprefix("kimg-")))


def latest(run: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, checked; None where there is none."""
    atomic.clean_stale(run / "checkpoints")
    found = folders(run)
    return open_checkpoint(found[-1]) if found else None


def find(run: Path, which: str) -> Checkpoint:
    """The checkpoint `latest`, `best` or that of a number of kimg."""
    found = folders(run)
    if not found:
        raise UserError(f"run {run}: it has no checkpoint yet; let it train until its first one")
    if which == "latest":
        return open_checkpoint(found[-1])
    if which == "best":
        best = best_of(run, open_checkpoint(found[-1]).state)
        return open_checkpoint(run / "checkpoints" / best["folder"] if best else found[-1])
    for folder in found:
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?", which) and float(folder.name.removeprefix("kimg-")) == float(which):
            return open_checkpoint(folder)
    have = ", ".join(f"{float(folder.name.removeprefix('kimg-')):g}" for folder in found)
    raise UserError(f"run {run}: no checkpoint {which!r}; say latest, best or one of these kimg: {have}")


def best_of(run: Path, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best checkpoint by a state: `{"folder", "metric", "value"}`; None where none was scored, or it is gone."""
    best = state["best"]
    return best if best is not None and (run / "checkpoints" / best["folder"]).is_dir() else None


def prune(run: Path, keep: int) -> None:
    """Delete all checkpoints but the newest `keep` and those that one of these calls the best."""
    found = folders(run)
    states = [json.loads((folder / "state.json").read_bytes()) for folder in found[-keep:]]
    wanted = {best["folder"] for state in states if (best := state["best"]) is not None}
    for folder in found[:-keep]:
        if folder.name not in wanted:
            shutil.rmtree(folder)


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module, phase: str) -> dict[str, Tensor]:
    """The state of an optimizer as named tensors: `<phase>/<parameter>/<what>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    return {
        f"{phase}/{names[parameter]}/{what}": value
        for parameter, values in optimizer.state.items()
        for what, value in values.items()
    }


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, phase: str, tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    for name, parameter in module.named_parameters():
        prefix = f"{phase}/{name}/"
        found = {
            key.removeprefix(prefix): _laid_out_like(parameter, value)
            for key, value in tensors.items()
            if key.startswith(prefix)
        }
        if found:
            optimizer.state[parameter] = found


def _laid_out_like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` on the parameter's device and, where it has its shape, in its memory format: fused Adam walks through
    weights and moments side by side in memory, and would pair the wrong numbers of two formats."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
