"""What the standard library, numpy and Pillow raise on damaged files, and how it is said in part of a line."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib

# Each was raised by a torn, mangled or mislabelled file: RuntimeError by an encrypted member (and NotImplementedError,
# one of them, by an unknown compression), SyntaxError and TokenError by an array's header, MemoryError and
# OverflowError by a size that nobody has written, ValueError (with UnicodeDecodeError) by almost anything.
DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, SyntaxError, RuntimeError, MemoryError, OverflowError),
    *(struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
_LONGEST = 120  # characters; a damaged name can be as long as its file


def reason(error: BaseException) -> str:
    """What an error says, in at most 120 printable characters; its kind where it says nothing."""
    text = str(error.args[0] if isinstance(error, tokenize.TokenError) else error)
    if isinstance(error, TypeError | AttributeError):  # which speak of Python, not of the file
        return "its header is damaged, or it is another kind of file"
    if "pickle" in text:
        return "it holds pickled objects, which are never opened"
    line = "".join(c if c.isprintable() else "?" for c in text.strip().splitlines()[0]) if text.strip() else ""
    return (line if len(line) <= _LONGEST else f"{line[:_LONGEST]}...") or type(error).__name__
