"""Each way in which a server fails: what is worth another try gets one, what is final is one line at once."""

from __future__ import annotations

import ftplib
import hashlib
import io
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shards import location, transport
from shards.errors import DataError, UserError
from shards.locks import Stopped
from shards.manifest import Shard
from shards.retries import Tries
from shards.transport import Remote

NAME = "train/a.tar"


@pytest.fixture
def body(tmp_path: Path) -> bytes:
    data: bytes = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "far" / "train").mkdir(parents=True)
    (tmp_path / "far" / NAME).write_bytes(data)
    return data


@pytest.fixture
def server(body: bytes, tmp_path: Path, serve: Callable[[Path], Any]) -> Any:
    return serve(tmp_path / "far")


def fetched(server: Any, body: bytes, into: io.BytesIO | None = None) -> bytes:
    shard = Shard(NAME, 1, len(body), hashlib.sha256(body).hexdigest())
    file = io.BytesIO() if into is None else into
    Remote(server.url).download(shard, file, threading.Event())
    return file.getvalue()


def fails_first(*faults: str) -> Callable[[str, int], str]:
    return lambda path, number: faults[number] if number < len(faults) else ""


@pytest.mark.parametrize("fault", ["drop", "tear", "stall", "500", "502", "503", "429", "408", "short", "flip"])
def test_what_may_pass_is_tried_again(server: Any, body: bytes, fault: str) -> None:
    server.plan = fails_first(fault)
    assert fetched(server, body) == body
    assert len(server.log) == 2


def test_a_torn_stream_goes_on_where_it_tore(server: Any, body: bytes) -> None:
    """Not a byte is asked for again that was read, and none is written twice."""

    lengths = [0]

    class Counted(io.BytesIO):
        def write(self, data: Any, /) -> int:
            lengths.append(lengths[-1] + len(data))
            return super().write(data)

    server.plan = fails_first("tear", "tear")
    assert fetched(server, body, Counted()) == body
    assert lengths[-1] == len(body)
    first, second, third = (offset for _, offset in server.log)
    assert first == 0 < second <= len(body) // 2  # a client that is slow loses what it had not read yet
    assert second < third
    assert {second, third} <= set(lengths)


def test_a_server_without_ranges_is_read_from_the_beginning(server: Any, body: bytes) -> None:
    server.ranges = False
    server.plan = fails_first("tear", "tear")
    assert fetched(server, body) == body


def test_a_server_that_asks_for_a_pause_gets_it(server: Any, body: bytes) -> None:
    server.plan = fails_first("429 1")
    begun = time.monotonic()
    assert fetched(server, body) == body
    assert time.monotonic() - begun >= 1


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("404", r"/train/a\.tar: there is no such file; check the URL$"),
        ("410", r"/train/a\.tar: there is no such file; check the URL$"),
        ("403", r"/train/a\.tar: access denied \(403\); check the URL and your credentials$"),
        ("401", r"/train/a\.tar: access denied \(401\); check the URL and your credentials$"),
        ("400", r"/train/a\.tar: the server answered 400 Bad Request; check the URL$"),
        ("204", r"/train/a\.tar: the server answered 204 No Content; check the URL$"),
        ("300", r"/train/a\.tar: the server answered 300 Multiple Choices; check the URL$"),
        ("304", r"/train/a\.tar: the server answered 304 Not Modified; check the URL$"),
        ("302 file:///x", r"/train/a\.tar: cannot be read: NonHttpUrlRedirectClientError: file:///x; check the URL"),
    ],
)
def test_what_is_final_is_one_line_at_once(server: Any, body: bytes, fault: str, line: str) -> None:
    server.plan = lambda path, number: fault
    with pytest.raises(DataError, match=line) as caught:
        fetched(server, body)
    assert "\n" not in str(caught.value)
    assert len(server.log) == 1


def test_a_small_file_is_read_whole_and_no_further_than_it_may_be_long(
    server: Any, body: bytes, tmp_path: Path
) -> None:
    for fault in ("", "tear", "drop", "packed"):
        server.plan, server.seen = fails_first(fault), Counter()
        assert Remote(server.url).read(NAME, len(body)) == body
    for fault in ("", "packed", "endless"):
        server.plan = lambda path, number, fault=fault: fault
        with pytest.raises(DataError, match=r"/train/a\.tar: has more than 1,000,000 bytes.*; check the URL$"):
            Remote(server.url).read(NAME, 1_000_000)
    (tmp_path / "far" / "empty").touch()
    near = Remote(f"file://{tmp_path}/far")
    assert near.read("empty") == b""
    assert near.read(NAME) == body
    with pytest.raises(DataError, match="has more than 1,000,000 bytes"):
        near.read(NAME, 1_000_000)


def test_a_protocol_that_connects_at_once_or_wants_more_than_a_url_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    patience = transport.Patience(stall=1.0, first=0.01, longest=0.05, total=0.2)
    with pytest.raises(
        UserError, match=r"ftp://127\.0\.0\.1:1/x: ConnectionRefusedError.* see whether the server is up"
    ):
        Remote("ftp://127.0.0.1:1/x", patience)
    with pytest.raises(DataError, match=r"reference://x: cannot be read: TypeError: .*; check the URL"):
        Remote("reference://x", patience)

    def refused(*arguments: object, **options: object) -> None:
        raise ftplib.error_perm("530 Login incorrect")

    monkeypatch.setattr("fsspec.core.url_to_fs", refused)
    with pytest.raises(
        DataError, match=r"ftp://h/x: cannot be read: error_perm: 530 Login incorrect; check the URL and"
    ):
        Remote("ftp://h/x", patience)


def test_credentials_that_are_missing_are_final_and_an_endpoint_that_is_away_is_not() -> None:
    botocore = pytest.importorskip("botocore.exceptions", reason="the extra `remote` is not installed")
    tries = Tries("s3://bucket/a.tar", transport.Patience(first=0.0), threading.Event())
    for error in (botocore.NoCredentialsError(), NotImplementedError("ls"), ValueError("no such bucket name")):
        with pytest.raises(DataError, match=r"s3://bucket/a.tar: cannot be read: .*check the URL and your credentials"):
            tries.failed(error)
    for error in (
        botocore.EndpointConnectionError(endpoint_url="http://h"),
        botocore.ConnectionClosedError(endpoint_url="http://h"),
        botocore.HTTPClientError(error="reset"),
    ):
        tries.failed(error)


@pytest.mark.parametrize("fault", ["flip", "short"])
def test_another_file_is_fetched_afresh_once_and_then_refused_by_name(server: Any, body: bytes, fault: str) -> None:
    server.plan = lambda path, number: fault
    with pytest.raises(DataError, match=r"/train/a\.tar: .*the manifest says.*altered on the server"):
        fetched(server, body)
    assert [first for _, first in server.log] == [0, 0]


@pytest.mark.parametrize(("change", "rule"), [(b"more", "it has 3,000,004 bytes"), (b"", "it has 2,999,990 bytes")])
def test_a_file_of_another_size_is_refused_before_it_is_read(
    server: Any, body: bytes, change: bytes, rule: str
) -> None:
    (server.root / NAME).write_bytes(body + change if change else body[:-10])
    with pytest.raises(DataError, match=rule):
        fetched(server, body)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("drop", "ServerDisconnectedError"), ("503", "the server answered 503"), ("stall", "nothing came for too long")],
)
def test_patience_ends_in_one_line(
    server: Any, body: bytes, monkeypatch: pytest.MonkeyPatch, fault: str, words: str
) -> None:
    monkeypatch.setattr(transport, "PATIENCE", transport.Patience(stall=0.2, first=0.01, longest=0.05, total=0.5))
    server.plan = lambda path, number: fault
    with pytest.raises(UserError, match=words) as caught:
        Remote(server.url).read(NAME)
    assert "\n" not in str(caught.value)
    assert len(server.log) > 1


def test_a_server_that_is_not_there_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "PATIENCE", transport.Patience(stall=0.2, first=0.01, longest=0.05, total=0.3))
    with pytest.raises(UserError, match=r"^http://127\.0\.0\.1:9/manifest\.json: .* times in .*run the same command"):
        Remote("http://127.0.0.1:9").read("manifest.json")


def test_a_download_that_nobody_wants_any_more_ends(server: Any, body: bytes) -> None:
    server.plan = lambda path, number: "503"
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(Stopped):
        Remote(server.url).download(Shard(NAME, 1, len(body), "0" * 64), io.BytesIO(), stop)


def test_pipes_and_chains_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"pipe:cat /etc/passwd: a pipe: URL runs a command"):
        location.is_url("pipe:cat /etc/passwd")
    with pytest.raises(UserError, match="chained"):
        location.is_url("simplecache::https://host/mnist")


def test_a_protocol_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*arguments: object, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(UserError, match=r"s3://bucket/mnist: s3:// needs a package .*infogan-harness\[remote\]"):
        Remote("s3://bucket/mnist")


def test_a_protocol_that_nobody_knows_is_one_line() -> None:
    with pytest.raises(UserError, match=r"nosuch://x: Protocol not known: nosuch"):
        Remote("nosuch://x")


def test_secrets_in_a_url_are_used_and_not_shown(server: Any, body: bytes) -> None:
    url = server.url.replace("http://", "http://me:word@") + "?signature=abc"
    assert location.join(url, NAME).endswith(f"/{NAME}?signature=abc")
    assert location.shown(url) == server.url
    server.plan = lambda path, number: "404"
    with pytest.raises(DataError) as caught:
        Remote(url).read(NAME)
    assert "word" not in str(caught.value)
    assert "abc" not in str(caught.value)
