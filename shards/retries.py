"""Which failures of a transfer are worth another try, how long to pause before it, and in which words they end."""

from __future__ import annotations

import email.utils
import random
import sys
import threading
import time
from dataclasses import dataclass

import aiohttp

from shards.errors import DataError, UserError
from shards.location import shown
from shards.locks import Stopped

_TOLD_AFTER = 3  # failures in a row after which a line says that we are still trying
_LONGEST_RETRY_AFTER = 300.0  # seconds of a server's Retry-After that we obey

# What no other try would mend. Everything else may pass: each protocol's package has classes of its own for that.
_FINAL = (
    aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, NotADirectoryError, IsADirectoryError, ValueError, TypeError,
    LookupError, AttributeError, AssertionError, ImportError, NotImplementedError,
)  # fmt: skip
_FINAL_ELSEWHERE = (  # those of botocore, google-auth, ftplib and paramiko, by name
    "NoCredentialsError", "PartialCredentialsError", "NoAuthTokenError", "ProfileNotFound", "ConfigParseError",
    "ConfigNotFound", "NoRegionError", "ValidationError", "ParamValidationError", "SSOError", "LoginError",
    "TokenRetrievalError", "InvalidConfigError", "DefaultCredentialsError", "RefreshError",
    "error_perm", "AuthenticationException",
)  # fmt: skip


@dataclass(frozen=True)
class Patience:
    """How long to hold out, in seconds.

    `stall`: without a byte, until a request is given up; of a protocol without streams, which does not tell how far it
    is, for a block of 2 MiB, or a small file. `first`, `longest`: the pause after a failure, which doubles.
    `total`: without progress, until the failure is final.
    """

    stall: float = 30.0
    first: float = 0.5
    longest: float = 30.0
    total: float = 300.0


class Torn(OSError):
    """The stream ended too soon."""


class Differs(Exception):
    """The server holds another file than the manifest describes."""


class Tries:
    """The failures of one transfer: which of them are final, and how long to pause after the others."""

    def __init__(self, place: str, patience: Patience, stop: threading.Event) -> None:
        self._place, self._patience, self._stop = shown(place), patience, stop
        self.progress()

    def progress(self) -> None:
        """Something came: failures are counted anew."""
        self._failures, self._since = 0, time.monotonic()

    def failed(self, error: Exception) -> None:
        """Returns after a pause, or raises where another try is of no use or patience is at its end."""
        asked = self._worth_another_try(error)
        self._failures += 1
        waited = time.monotonic() - self._since
        if waited >= self._patience.total:
            raise UserError(
                f"{self._place}: {_words(error)}, {self._failures} times in {waited:.0f} s; "
                "see whether the server is up, then run the same command again"
            ) from error
        if self._failures == _TOLD_AFTER:
            print(f"{self._place}: {_words(error)}; still trying", file=sys.stderr)
        pause = min(self._patience.longest, self._patience.first * 2 ** (self._failures - 1))
        # Jitter: the processes of a cluster that failed together must not all come back together.
        pause = max(pause * random.uniform(0.5, 1.0), min(asked, _LONGEST_RETRY_AFTER))
        if self._stop.wait(pause):
            raise Stopped

    def _worth_another_try(self, error: Exception) -> float:
        """Seconds that the server asks us to wait; raises for a failure that is final."""
        status = getattr(error, "status", None) if isinstance(error, aiohttp.ClientResponseError) else None
        if isinstance(error, FileNotFoundError) or status in (404, 410):
            raise DataError(f"{self._place}: there is no such file; check the URL") from None
        if isinstance(error, PermissionError) or status in (401, 403):
            raise DataError(
                f"{self._place}: access denied{f' ({status})' if status else ''}; check the URL and your credentials"
            ) from None
        if status == 416:
            raise Differs("it is shorter than the manifest says")
        if isinstance(error, aiohttp.ClientResponseError) and status is not None:
            if status in (408, 425, 429) or (status >= 500 and status != 501):
                return _retry_after(error)
            raise DataError(f"{self._place}: {_words(error)}; check the URL") from None
        if not isinstance(error, _FINAL) and not any(name in _names(error) for name in _FINAL_ELSEWHERE):
            return 0.0
        raise DataError(
            f"{self._place}: cannot be read: {_words(error)}; check the URL and your credentials"
        ) from error


def _retry_after(error: aiohttp.ClientResponseError) -> float:
    """Seconds of a Retry-After header, which holds a number or a date; 0 without one."""
    text = str(error.headers.get("Retry-After", "")).strip() if error.headers else ""
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def _names(error: Exception) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


def _words(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientResponseError):
        return f"the server answered {error.status} {error.message}".rstrip()
    if isinstance(error, TimeoutError):
        return "nothing came for too long"
    text = " ".join(str(error).split())
    return text if isinstance(error, Torn) and text else f"{type(error).__name__}{f': {text}' if text else ''}"
