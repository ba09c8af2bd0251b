"""What a run remembers of its user's own code, and what is said when it meets that code changed, or not at all.

Plugins are recorded in `environment.json`, beside the versions of packages, and like these do not belong to a run's
identity: that is what its config says, which names the components and all their options. So a comment added to a
plugin stops no run; a plugin that changed is told of, in one line.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from infogan.registry import UnknownComponent
from shards import plugins
from shards.errors import UserError

Record = Mapping[str, Any]
"""`file`, `sha256` and `registers` of one `shards.plugins.Plugin`, as JSON has them."""


def record() -> list[Record]:
    """The plugins of this process."""
    return [asdict(plugin) for plugin in plugins.known()]


def recorded(run: Path) -> list[Record]:
    """The plugins of a run's last start. The file only informs: one that is missing or damaged tells nothing."""
    try:
        start = json.loads((run / "environment.json").read_bytes())["starts"][-1]
        return [found for found in start["plugins"] if {"file", "sha256", "registers"} <= found.keys()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def changes(before: Sequence[Record]) -> list[str]:
    """One line for each plugin of this process whose content is another than that of the plugin `before` it."""
    then = {what: plugin for plugin in before for what in plugin["registers"]}
    lines = []
    for now in plugins.known():
        old = next((then[what] for what in now.registers if what in then), None)
        if old is not None and old["sha256"] != now.sha256:
            lines.append(
                f"plugin {now.file}: changed since this run was last started (sha256 {old['sha256'][:12]}, "
                f"now {now.sha256[:12]}): what it registers may compute something else"
            )
    return lines


def explained(error: UnknownComponent, before: Sequence[Record]) -> UserError:
    """The error of a config that names a component which only a plugin has, with the plugin that had it `before`."""
    for plugin in before:
        if error.what in plugin["registers"]:
            file = plugin["file"]
            remedy = f"--plugin {file}" if Path(file).is_file() else f"--plugin FILE with that file, once {file}"
            return UserError(
                f"{error.what} is not ours: it was registered by the plugin {Path(file).name} (sha256 "
                f"{plugin['sha256'][:12]}), which is not loaded; say {remedy}, or from Python import it first"
            )
    return error
