"""Which code runs: the commit of a checkout, or what a copy of one, as a sweep's jobs run it, says of itself."""

import json
import os
import subprocess
from pathlib import Path

CODE_FILE = "CODE.json"
"""At the top of a copy of the code: which commit it is of, and what differs."""


def git(root: Path, *words: str) -> str | None:
    """What git says in a checkout with `root` at its top; None where there is no git, or no such checkout: code that
    is installed somewhere inside another project has nothing to do with that one's commits."""
    top = _said(root, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != root.resolve():
        return None
    return _said(root, *words)


def _said(root: Path, *words: str) -> str | None:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        found = subprocess.run(["git", *words], cwd=root, env=clean, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.decode(errors="replace")


def current() -> str | None:
    """The commit of the code that runs, with a + where the tree has changes; None outside a checkout."""
    root = Path(__file__).parent.parent
    if (root / CODE_FILE).is_file():
        about = json.loads((root / CODE_FILE).read_bytes())
        changed = about["diff"] or about["untracked"]
        return f"{about['commit']}{'+' if changed else ''}" if about["commit"] else f"snapshot {about['digest']}"
    found = git(root, "rev-parse", "HEAD")
    return found and found.strip() + ("+" if git(root, "status", "--porcelain") else "")
