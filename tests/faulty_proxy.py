"""An HTTP proxy that does to a storage server's answers what networks do, by seed.

Forwards every request to one server and breaks some of the answers: errors instead of an answer,
an answer that was carried out and got lost, connections reset or stalled half-way, slow bodies.
"""

from __future__ import annotations

import random
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

KINDS = ("500", "503", "lost", "reset", "stall", "slow")
"""What can happen: an error, a request carried out whose answer is an error ('lost'), a connection
reset or silent in the middle of the body, a body in dribs and drabs."""
SILENT_SECONDS = 60.0
"""After which either side of a connection is given up."""


@dataclass
class FaultyProxy:
    """What happens to requests, and what happened; may be changed while it serves."""

    upstream: int
    """The server's port on localhost."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Share of requests that meet each kind of fault."""
    seed: int = 0
    """Of the faults."""
    stall_seconds: float = 5.0
    """How long a stalled connection is silent before it is closed."""
    dead: bool = False
    """Whether every connection is closed at once, as by a server that is gone."""
    forbidden: bool = False
    """Whether every request is answered with 403."""
    dies_after: int | None = None
    """Requests after which the server is dead; None where it never dies."""
    port: int = 0
    """Where the proxy listens on localhost."""
    injected: Counter[str] = field(default_factory=Counter)
    """Faults so far, by kind."""
    requests: Counter[str] = field(default_factory=Counter)
    """Requests so far, by method."""
    body_nbytes: int = 0
    """Bytes of bodies answered so far."""

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._lock = threading.Lock()
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Begin counting anew."""
        self.injected.clear()
        self.requests.clear()
        self.body_nbytes = 0

    def _fault(self) -> str:
        """What happens to the next request; the caller holds the lock."""
        drawn = self._random.random()
        for kind, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                self.injected[kind] += 1
                return kind
        return ""

    def handle(self, request: bytes) -> tuple[bytes, str]:
        """The answer to a request, and what happens to it on its way; none from a dead server."""
        with self._lock:
            self.requests[request.split(b" ", 1)[0].decode()] += 1
            if self.dies_after is not None and self.requests.total() > self.dies_after:
                self.dead = True
            if self.dead:
                return b"", ""
            if self.forbidden:
                return _status(403, "Forbidden", "AccessDenied"), ""
            fault = self._fault()
        if fault in ("500", "503"):
            return _status(int(fault), "Injected", "SlowDown"), ""
        answer = _forwarded(self.upstream, request)
        if fault == "lost":
            return _status(500, "Injected", "InternalError"), ""
        with self._lock:
            self.body_nbytes += len(answer) - (answer.find(b"\r\n\r\n") + 4)
        return answer, fault

    def send(self, answer: bytes, fault: str, plug: socket.socket) -> None:
        half = max(answer.find(b"\r\n\r\n") + 4, len(answer) // 2)
        if fault == "slow":
            step = max(1, len(answer) // 8)
            for start in range(0, len(answer), step):
                plug.sendall(answer[start : start + step])
                self.over.wait(0.02)
        elif fault in ("reset", "stall"):
            plug.sendall(answer[:half])
            if fault == "stall":
                self.over.wait(self.stall_seconds)
            # closing will send RST instead of FIN: the peer meets an error, not an end
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            plug.sendall(answer)


def _request(file: BinaryIO) -> bytes:
    """One request, told to be the connection's last; nothing where there is none."""
    lines = []
    while (line := file.readline()).strip():
        lines.append(line.strip())
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    length = next((int(one[15:]) for one in kept if one.lower().startswith(b"content-length:")), 0)
    body = file.read(length)
    return b"\r\n".join([*kept, b"Connection: close", b"", b""]) + body if kept else b""


def _forwarded(port: int, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), SILENT_SECONDS) as plug:
        plug.sendall(request)
        with plug.makefile("rb") as file:
            return file.read()


def _status(code: int, text: str, name: str) -> bytes:
    body = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {code} {text}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, proxy: FaultyProxy) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.proxy = proxy


class _Connection(socketserver.StreamRequestHandler):
    timeout = SILENT_SECONDS
    server: _Server

    def handle(self) -> None:
        proxy = self.server.proxy
        try:
            if not proxy.dead and (request := _request(self.rfile)):
                proxy.send(*proxy.handle(request), self.connection)
        except OSError:
            pass  # the client went away: it has had enough of a stall


@contextmanager
def serving(proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """Serve in threads for the length of a block."""
    with _Server(proxy) as server:
        proxy.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="faulty proxy")
        thread.start()
        try:
            yield proxy
        finally:
            proxy.over.set()
            server.shutdown()
            thread.join()
