"""Where a data set can lie: in a folder, or at a URL of any kind that fsspec reads."""

from __future__ import annotations

import os
import re
from pathlib import Path

from shards.errors import UserError

_SCHEME = re.compile(r"^(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):(?P<slashes>//)?")


def is_url(location: str | os.PathLike[str]) -> bool:
    """Whether a location is a URL; anything else is a path.

    Raises:
        UserError: `pipe:` and chained URLs, which would run commands or other readers.
    """
    text = os.fspath(location)
    match = _SCHEME.match(text)
    if match is None:
        return False
    if match["scheme"].lower() == "pipe":
        raise UserError(f"{text}: a pipe: URL runs a command, and data never does; give the URL of the data itself")
    if "::" in text:
        raise UserError(f"{text}: chained URLs (a::b) are not read; give the URL of the data itself")
    return match["slashes"] is not None


def network_forbidden() -> bool:
    """Whether INFOGAN_OFFLINE says that nothing may be fetched, as on compute nodes without internet."""
    return os.environ.get("INFOGAN_OFFLINE", "0") not in ("", "0")


def protocol(url: str) -> str:
    """`https` of `https://host/mnist`, in lower case."""
    return url.partition("://")[0].lower()


def as_url(location: str) -> str:
    """A URL as it is; a path as a file:// URL."""
    return location if is_url(location) else f"file://{Path(location).resolve()}"


def join(base: str, name: str) -> str:
    """The location of a file below `base`; a URL's query (a signature, say) stays at its end."""
    if not is_url(base):
        return os.path.join(base, name)
    if protocol(base) in ("http", "https"):
        path, mark, query = base.partition("?")
        return f"{path.rstrip('/')}/{name}{mark}{query}"
    return f"{base.rstrip('/')}/{name}"


def shown(location: str) -> str:
    """A location as it may be printed and logged: without a password, and without a query, which may be a signature."""
    if not is_url(location):
        return location
    if protocol(location) in ("http", "https"):
        location = location.partition("?")[0]
    return re.sub(r"^(?P<scheme>[^:]+://)[^/@]*@", r"\g<scheme>", location)
