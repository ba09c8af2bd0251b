"""Code of one's own: a Python file that registers something when it runs, such as a source.

`load` runs such a file; a plain import of it does as well. Whoever keeps a registry, on this floor or above, asks
`registering` about every new entry, so that all of them are held to the same rules and those from outside are known by
file and sha256: a run records them.

A plugin is code, and runs with all that its user may do. So only the user names one, as an option or an import;
no data set, config, checkpoint or exported model can.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from shards.errors import UserError


@dataclass
class Plugin:
    """A file that registered something: its absolute path, its sha256, and what, as in "source 'stripes'"."""

    file: str
    sha256: str
    registers: list[str] = field(default_factory=list)


_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_known: dict[str, Plugin] = {}  # by file
_running: list[Plugin] = []  # by `load`, the innermost last


def known() -> list[Plugin]:
    """Every file outside our tree that has registered something in this process, in their order."""
    return [plugin for plugin in _known.values() if plugin.registers]


def load(file: str | os.PathLike[str]) -> Plugin:
    """Runs a plugin file, unless it has run here before with the content that it has now, and says what it registers.

    Nothing is written beside it, and what it imports is found as in any program: installed, or on PYTHONPATH.

    Raises:
        UserError: no such file, not a .py, or an error in it (its line is named).
    """
    path = Path(file)
    if path.suffix != ".py":
        raise UserError(f"plugin {path}: must be a Python file, with a name that ends in .py")
    try:
        source = path.read_bytes()
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else (error.strerror or str(error)).lower()
        raise UserError(f"plugin {path}: {reason}; give the path of a Python file of yours") from None
    place, sha256 = str(path.resolve()), hashlib.sha256(source).hexdigest()
    if place in _known and _known[place].sha256 == sha256 and _module_name(place) in sys.modules:
        return _known[place]
    plugin = Plugin(place, sha256)
    _running.append(plugin)
    try:
        _run(path, place, source)
    finally:
        _running.pop()
    _known[place] = plugin
    return plugin


def _module_name(place: str) -> str:
    digest = hashlib.sha256(os.fsencode(place)).hexdigest()
    return f"infogan_plugin_{Path(place).stem}_{digest[:8]}"


def _run(path: Path, place: str, source: bytes) -> None:
    """Runs the very bytes that were hashed, as a module of their own; it stays in `sys.modules` if that goes well."""
    module = ModuleType(_module_name(place))
    module.__file__ = place
    try:
        code = compile(source, place, "exec")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:  # null bytes; nested too deeply
        at = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        what = error.msg if isinstance(error, SyntaxError) else _said(error)
        what = "it is nested too deeply" if isinstance(error, MemoryError | RecursionError) else what
        raise UserError(f"plugin {path}{at}: not Python: {what}; correct it") from error
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look their annotations up there
    try:
        exec(code, module.__dict__)
    except BaseException as error:
        del sys.modules[module.__name__]
        if before is not None:
            sys.modules[module.__name__] = before
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == place]
        what = _said(error) if isinstance(error, UserError) else f"{type(error).__name__}: {_said(error)}"
        raise UserError(f"plugin {path}, line {lines[-1]}: {' '.join(what.split())}") from error


def _said(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except Exception:  # a class of the plugin's own, wrong in this too
        return "(its text cannot be made)"


def check_name(kind: str, name: object) -> None:
    """Asked by a registry as soon as it hears a name: it becomes a word of the command line and part of a path.

    Raises:
        UserError: no text, or with other characters than a word has.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"{kind} {name!r}: a name must be a text that begins with a letter and holds only letters, digits, _ and "
            f"-, as in register('my_{kind}')"
        )


def registering(kind: str, name: str, entry: type[Any], standing: type[Any] | None, *, ours: bool) -> None:
    """Asked by a registry before it keeps `entry` as the `kind` of that name, where `standing` is now.

    A class may take the place of its own earlier definition: a file imported again, a notebook's cell run again.
    `ours`: the class comes with the registry, so there is nothing to remember.

    Raises:
        UserError: the name is another class's, or `entry` leaves out a method that its kind must have.
    """
    if standing is not None and not (standing.__qualname__ == entry.__qualname__ and _home(standing) == _home(entry)):
        raise UserError(
            f"{kind} {name!r}: the name is taken, by {standing.__qualname__} of {_home(standing)}; choose another one"
        )
    lacking = sorted(getattr(entry, "__abstractmethods__", ()))
    if lacking:
        raise UserError(f"{kind} {name!r}: {entry.__qualname__} lacks {', '.join(lacking)}, which every {kind} has")
    if not ours:
        _remember(f"{kind} {name!r}", entry)


def _remember(what: str, entry: type[Any]) -> None:
    """Adds to the plugin that runs now, else to the file that the class was imported from, if there is one."""
    if _running:
        plugin = _running[-1]
    else:
        home = _home(entry)
        if not os.path.isfile(home):
            return
        sha256 = hashlib.sha256(Path(home).read_bytes()).hexdigest()
        plugin = _known.setdefault(home, Plugin(home, sha256))
        plugin.sha256 = sha256
    if what not in plugin.registers:
        plugin.registers.append(what)


def _home(entry: type[Any]) -> str:
    """The file that a class was defined in; the name of its module where there is none, as in a notebook."""
    file = getattr(sys.modules.get(entry.__module__), "__file__", None)
    return os.path.realpath(file) if file else entry.__module__
