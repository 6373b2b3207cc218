"""An HTTP proxy that does to a storage server's answers what networks do, by seed.

Forwards every request to one server and breaks some of the answers: errors instead of an answer,
an answer that was carried out and got lost, connections reset or stalled half-way, slow bodies.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

KINDS = ("500", "503", "lost", "reset", "stall", "slow")
"""What can happen: an error, a request carried out whose answer is an error ('lost'), a connection
reset or silent in the middle of the body, a body in dribs and drabs."""
LARGEST_HEAD = 1 << 20


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

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def forget(self) -> None:
        """Begin counting anew."""
        self.injected.clear()
        self.requests.clear()
        self.body_nbytes = 0

    def _fault(self) -> str:
        drawn = self._random.random()
        for kind, rate in self.rates.items():
            drawn -= rate
            if drawn < 0:
                self.injected[kind] += 1
                return kind
        return ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not self.dead:
                await self._answer(await _request(reader), writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()

    async def _answer(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        self.requests[request.split(b" ", 1)[0].decode()] += 1
        if self.dies_after is not None and self.requests.total() > self.dies_after:
            self.dead = True
            return
        if self.forbidden:
            writer.write(_status(403, "Forbidden", "AccessDenied"))
            return
        fault = self._fault()
        if fault in ("500", "503"):
            writer.write(_status(int(fault), "Injected", "SlowDown"))
            return
        answer = await _forward(self.upstream, request)
        if fault == "lost":
            writer.write(_status(500, "Injected", "InternalError"))
            return
        self.body_nbytes += len(answer) - (answer.find(b"\r\n\r\n") + 4)
        await self._send(answer, fault, writer)

    async def _send(self, answer: bytes, fault: str, writer: asyncio.StreamWriter) -> None:
        half = max(answer.find(b"\r\n\r\n") + 4, len(answer) // 2)
        if fault == "slow":
            for start in range(0, len(answer), max(1, len(answer) // 8)):
                writer.write(answer[start : start + max(1, len(answer) // 8)])
                await writer.drain()
                await asyncio.sleep(0.02)
        elif fault in ("reset", "stall"):
            writer.write(answer[:half])
            await writer.drain()
            if fault == "stall":
                await asyncio.sleep(self.stall_seconds)
            _reset_on_close(writer)
        else:
            writer.write(answer)
            await writer.drain()


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = [
        line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:") and line
    ]
    length = next(
        (int(one.split(b":")[1]) for one in lines if one.lower().startswith(b"content-length:")), 0
    )
    body = await reader.readexactly(length)
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body


async def _forward(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        return await reader.read(-1)
    finally:
        writer.close()


def _status(code: int, text: str, name: str) -> bytes:
    body = f"<Error><Code>{name}</Code><Message>injected</Message></Error>".encode()
    head = f"HTTP/1.1 {code} {text}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Closing will send RST instead of FIN: the peer meets an error, not an end."""
    plug: socket.socket = writer.get_extra_info("socket")
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def serving(proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    """Serve in a thread of its own for the length of a block."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(
        asyncio.start_server(proxy.handle, "127.0.0.1", 0, limit=LARGEST_HEAD)
    )
    proxy.port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, name="faulty proxy")
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        _cancel_all(loop)
        loop.close()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    for task in asyncio.all_tasks(loop):
        task.cancel()
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
