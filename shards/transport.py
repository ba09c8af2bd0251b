"""Reading files behind a URL, over networks that fail.

fsspec speaks the protocols. What is added here: a file is streamed whole and hashed as it comes; where the stream
tears it goes on from that byte, if the server can serve a range, else from the beginning; what is worth another try is
tried again after a pause that doubles, with jitter, until nothing has come for `Patience.total` seconds; and every end
is one line. A file whose size or sha256 is another than the manifest's is fetched afresh once more, since a proxy or a
mirror may have been caught in the middle of a change, and then refused by name.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from fnmatch import fnmatch
from typing import IO, Any

import aiohttp
import fsspec
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.http import HTTPFileSystem

from shards.errors import DataError, UserError
from shards.location import join, protocol, shown
from shards.locks import Stopped
from shards.manifest import Shard
from shards.retries import Differs, Patience, Torn, Tries

_BLOCK = 2 << 20  # bytes asked for at once where a protocol has no streams, and due within `Patience.stall`
_PIECE = 1 << 20  # bytes taken from a stream at once
SMALL = 64 << 20  # bytes of the largest file that is read into memory: the manifest of a million shards has half
_EXTRA = "infogan-harness[remote]"

PATIENCE = Patience()


class Remote:
    """The files below a URL.

    Raises:
        UserError: a protocol that nobody knows, whose package is not installed, or whose server cannot be reached.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self.url, self.patience = url, patience or PATIENCE
        options = self._http_options() if protocol(url) in ("http", "https") else {}
        tries = Tries(url, self.patience, threading.Event())
        while True:
            try:
                self._fs = fsspec.core.url_to_fs(url, **options)[0]
                return
            except ImportError as error:
                raise UserError(
                    f"{shown(url)}: {protocol(url)}:// needs a package that is not installed ({error}); "
                    f'pip install "{_EXTRA}" brings that of s3://, pip install PACKAGE any other'
                ) from None
            except ValueError as error:
                raise UserError(f"{shown(url)}: {error}; give a path, or a URL that fsspec reads") from None
            except Exception as error:  # of a protocol that connects here already, or wants what no URL can say
                tries.failed(error)

    def _http_options(self) -> dict[str, Any]:
        stall = self.patience.stall
        timeout = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=stall, sock_read=stall)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}

    def read(self, name: str, most: int = SMALL) -> bytes:
        """A file of `most` bytes at most, whole.

        Raises:
            DataError: there is none, it is refused, or is larger. UserError: the server cannot be reached.
        """
        place = join(self.url, name)
        tries = Tries(place, self.patience, threading.Event())
        while True:
            try:
                data = self._beginning(place, most + 1)
                break
            except Exception as error:
                tries.failed(error)
        if len(data) > most:
            raise DataError(f"{shown(place)}: has more than {most:,} bytes, which no {name} has; check the URL")
        return data

    def _beginning(self, place: str, count: int) -> bytes:
        """A file as far as its first `count` bytes, whatever the server sends."""
        if not isinstance(self._fs, HTTPFileSystem):
            size = self._fs.info(self._fs._strip_protocol(place))["size"]  # an empty file has no range to ask for
            return self._cat(place, None, None if size is None or size < count else count)
        data = bytearray()
        with closing(self._stream(place, 0)) as stream:  # the server may send more than it says, or pack it
            while len(data) < count and (piece := stream.read(_PIECE)):
                data += piece
        return bytes(data[:count])

    def size(self, name: str) -> int | None:
        """Bytes of a file, as far as the server says. Raises like `read`."""
        place = join(self.url, name)
        tries = Tries(place, self.patience, threading.Event())
        while True:
            try:
                if not isinstance(self._fs, HTTPFileSystem):
                    size: int | None = self._fs.info(self._fs._strip_protocol(place))["size"]
                    return size
                with closing(self._stream(place, 0)) as stream:  # not every server answers HEAD
                    length = stream.r.headers.get("Content-Length", "")
                    return int(length) if length.isdecimal() else None
            except Exception as error:
                tries.failed(error)

    def copy(self, name: str, file: IO[bytes]) -> tuple[int, str]:
        """Writes a file of unknown content into an empty one; its size and its sha256. Raises like `read`."""
        size = self.size(name)
        if not size:
            raise DataError(f"{shown(join(self.url, name))}: the server does not say its size; copy it to a disk")
        try:
            return size, self._attempt(join(self.url, name), size, file, threading.Event())
        except Differs as error:
            raise DataError(
                f"{shown(join(self.url, name))}: it changed while it was read ({error}); try again"
            ) from None

    def download(self, shard: Shard, file: IO[bytes], stop: threading.Event) -> None:
        """Writes a shard into an empty file: exactly the bytes that the manifest describes.

        Raises:
            DataError: it is not there, refused, or differs. UserError: the server cannot be reached.
            Stopped: `stop` was set.
        """
        place = join(self.url, shard.name)
        for last in (False, True):
            try:
                found = self._attempt(place, shard.bytes, file, stop)
                if found == shard.sha256:
                    return
                rule = f"its sha256 is {found[:12]}..., the manifest says {shard.sha256[:12]}..."
            except Differs as error:
                rule = str(error)
            if last:
                raise DataError(
                    f"{shown(place)}: {rule}; it was altered on the server, or belongs to another data set: upload it "
                    "again"
                )

    def _attempt(self, place: str, size: int, file: IO[bytes], stop: threading.Event) -> str:
        """Streams a file from its beginning to its end, through as many requests as it takes; its sha256."""
        tries, state, got, furthest = Tries(place, self.patience, stop), hashlib.sha256(), 0, 0
        file.seek(0)
        while True:
            pieces: Iterator[bytes] | None = None
            try:
                start, pieces = self._open(place, got, size)
                if start != got:
                    state, got = hashlib.sha256(), 0
                    file.seek(0)
                while got < size:
                    piece = next(pieces, b"")
                    if not piece:
                        raise Torn(f"the stream ended after {got:,} of {size:,} bytes")
                    if got + len(piece) > size:
                        raise Differs(f"it has more than the {size:,} bytes that the manifest says")
                    _write(file, piece)
                    state.update(piece)
                    got += len(piece)
                    if got > furthest:
                        furthest = got
                        tries.progress()
                    if stop.is_set():
                        raise Stopped
                return state.hexdigest()
            except (Differs, Stopped):
                raise
            except _Unwritable as error:
                raise error.cause from None
            except Exception as error:
                tries.failed(error)
            finally:
                if pieces is not None:
                    pieces.close()  # type: ignore[attr-defined]

    def _open(self, place: str, offset: int, size: int) -> tuple[int, Iterator[bytes]]:
        """(where the pieces begin, pieces): at the offset asked for, or at 0 from a server without ranges."""
        if not isinstance(self._fs, HTTPFileSystem):
            return offset, self._blocks(place, offset, size)
        stream = self._stream(place, offset)
        response = stream.r
        if response.status == 206:
            span, _, whole = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
            begins, total = span.partition("-")[0] == str(offset), whole
        else:
            begins, offset, total = True, 0, response.headers.get("Content-Length", "")
        if not begins:
            stream.close()
            raise Torn("the server answered with another range than was asked for")
        if total.isdecimal() and int(total) != size and "Content-Encoding" not in response.headers:
            stream.close()
            raise Differs(f"it has {int(total):,} bytes, the manifest says {size:,}")
        return offset, _streamed(stream)

    def _stream(self, place: str, offset: int) -> Any:
        """An open answer to an HTTP request for a file from this byte on."""
        headers = {**self._fs.kwargs.get("headers", {}), "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        # A size, whichever, keeps fsspec from asking for it in a request of its own.
        stream = self._fs.open(place, block_size=0, size=1, headers=headers)
        response = stream.r
        if response.status not in (200, 203, 206):  # no error to aiohttp, but no file either
            stream.close()
            raise aiohttp.ClientResponseError(
                response.request_info, response.history, status=response.status, message=response.reason or ""
            )
        return stream

    def _blocks(self, place: str, offset: int, size: int) -> Iterator[bytes]:
        while offset < size:
            block = self._cat(place, offset, min(offset + _BLOCK, size))
            if not block:
                raise Differs(f"it ends after {offset:,} bytes, the manifest says {size:,}")
            yield block
            offset += len(block)

    def _cat(self, place: str, start: int | None, end: int | None) -> bytes:
        path = self._fs._strip_protocol(place)
        if isinstance(self._fs, AsyncFileSystem):
            data: bytes = sync(
                self._fs.loop, self._fs._cat_file, path, start=start, end=end, timeout=self.patience.stall
            )
            return data
        return bytes(self._fs.cat_file(path, start=start, end=end))

    def find(self, pattern: str) -> list[str]:
        """The files directly below the URL, or in the folder that the pattern names, that match it; sorted.

        Raises:
            UserError: the server lists nothing.
        """
        folder, _, last = pattern.rpartition("/")
        place = join(self.url, folder) if folder else self.url
        tries = Tries(place, self.patience, threading.Event())
        while True:
            try:
                found = self._fs.ls(self._fs._strip_protocol(place), detail=False)
                break
            except Exception as error:
                tries.failed(error)
        names = {str(path).partition("?")[0].rstrip("/").rpartition("/")[2] for path in found}
        return sorted(f"{folder}/{name}" if folder else name for name in names if fnmatch(name, last))


class _Unwritable(Exception):
    """The cache's disk refused, which no other request will mend."""

    def __init__(self, cause: OSError) -> None:
        self.cause = cause


def _write(file: IO[bytes], piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise _Unwritable(error) from error


def _streamed(stream: Any) -> Iterator[bytes]:
    with closing(stream):
        while piece := stream.read(_PIECE):
            yield piece
