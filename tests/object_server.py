"""A real S3 server on localhost, and a bucket in it behind a proxy that can inject faults."""

from __future__ import annotations

import itertools
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, serving
from obstore.store import ObjectStore, S3Store

START_SECONDS = 120
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "somebody",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
}
_numbers = itertools.count()


@contextmanager
def serving_objects() -> Iterator[int]:
    """A server in a process of its own; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": ""},
    )
    try:
        _await(server, port)
        yield port
    finally:
        server.kill()
        server.wait()


def _await(server: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json").close()
            return
        except urllib.error.URLError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.skip("the S3 server of moto does not start; install its 'server' parts")
            time.sleep(0.2)


@dataclass
class Bucket:
    """Where a test's objects lie."""

    url: str
    """``s3://...``"""
    proxy: FaultyProxy
    """All requests of the package go through it."""
    environment: Mapping[str, str]
    """What child processes need besides."""
    direct: ObjectStore
    """The bucket, past the proxy."""

    def put(self, key: str, data: bytes | Path) -> str:
        """Store an object; returns its URI."""
        self.direct.put(key, data if isinstance(data, bytes) else data.read_bytes())
        return f"{self.url}/{key}"

    def put_folder(self, key: str, folder: Path) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{key}/{path.relative_to(folder).as_posix()}", path)
        return f"{self.url}/{key}"

    def get(self, key: str) -> bytes:
        return bytes(self.direct.get(key).bytes())

    def keys(self, below: str = "") -> list[str]:
        """Every key below one, whole."""
        return sorted(meta["path"] for batch in self.direct.list(below) for meta in batch)


@contextmanager
def made_bucket(server: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket behind a proxy of its own; the environment points there."""
    with serving(FaultyProxy(server)) as proxy:
        environment = {
            **ACCOUNT,
            "AWS_ENDPOINT_URL": proxy.url,
            "SACCADE_CACHE": str(folder / "image-cache"),
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        name = f"bucket-{next(_numbers)}"
        endpoint = f"http://127.0.0.1:{server}"
        made = urllib.request.Request(f"{endpoint}/{name}", data=b"", method="PUT")
        urllib.request.urlopen(made).close()
        direct = S3Store(name, endpoint=endpoint, client_options={"allow_http": True})
        yield Bucket(f"s3://{name}", proxy, environment, direct)
