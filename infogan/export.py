"""The export of a finished run: weights that carry their config, and a model card."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import save

from infogan import plugins
from infogan.codes import CategoricalCode
from infogan.config import to_plain
from infogan.model import METADATA, Model
from shards import atomic


def export(model: Model, folder: Path, last_row: dict[str, Any]) -> None:
    """Write generator, critic, config and model card of `model` to `folder`, which appears whole."""
    # the file's name only: an export is handed on, and says nothing of the machine that it was made on
    known = [{**plugin, "file": Path(plugin["file"]).name} for plugin in plugins.record()]
    about = json.dumps({"config": to_plain(model.config), "origin": asdict(model.origin), "plugins": known})
    with atomic.folder(folder, replace=True) as beside:
        for name in ("generator", "critic"):
            tensors = {key: value.cpu().contiguous() for key, value in getattr(model, name).state_dict().items()}
            (beside / f"{name}.safetensors").write_bytes(save(tensors, metadata={METADATA: about}))
        (beside / "config.json").write_text(json.dumps(to_plain(model.config), indent=2) + "\n", encoding="utf-8")
        (beside / "README.md").write_text(model_card(model, last_row), encoding="utf-8")


def model_card(model: Model, last_row: dict[str, Any]) -> str:
    """What someone who is handed the export has to know, as Markdown."""
    origin, config = model.origin, model.config
    channels, height, width = model.image_shape
    lines = [
        f"# InfoGAN {origin.run}",
        "",
        f"Network `{config.network.name}`, images {height}x{width}x{channels}, trained on `{origin.data_name}` "
        f"for {origin.kimg:g} kimg ({origin.update} updates of {config.batch}), seed {config.seed}, "
        f"{config.precision}.",
        "",
        "| code | kind | values | L_I (nats) | ceiling |",
        "|---|---|---|---|---|",
    ]
    for name, code in model.codes.codes.items():
        values = f"0 to {code.ways - 1}" if isinstance(code, CategoricalCode) else "-1 to 1 (traversals: -2 to 2)"
        ceiling = "none" if code.ceiling is None else f"{code.ceiling:.3f}"
        lines.append(f"| {name} | {code.kind} | {values} | {last_row[f'mi/{name}']:.3f} | {ceiling} |")
    for plugin in plugins.record():
        lines += [
            "",
            f"Made with the plugin `{Path(plugin['file']).name}` (sha256 `{plugin['sha256']}`), which "
            f"registers {', '.join(plugin['registers'])}: import it first.",
        ]
    some = next(iter(model.codes.codes), None)
    lines += [
        "",
        "L_I is the mean of the last interval of training. What a code means is not in these weights: "
        "look at its traversal.",
        "",
        "```python",
        "import infogan",
        f'model = infogan.load("{origin.run}/export")',
        f"images = model.sample(8{f', {some}=1' if some else ''})  # uint8 [8, {channels}, {height}, {width}]",
        "codes = model.encode(images)",
        "```",
        "",
        f"Data digest `{origin.data_digest}`, checkpoint digest `{origin.checkpoint_digest}`. The generator's weights "
        "are the moving average (EMA); BatchNorm statistics were estimated afresh, the generator's over latents, the "
        "critic's over training images.",
        "",
    ]
    return "\n".join(lines)
