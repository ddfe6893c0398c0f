"""A provider that takes its time: lean enough to hold thousands of open submits beside what is measured.

`python bench/provider.py --port N --latency 10`: a submit is answered with success after `latency` seconds, the
picture's address is its own. `GET /stats` tells the open submits, the most there were, and how many of each call.
The simulator (`local.modelslab`) knows all of the provider's ways and costs five times as much a call.
"""

import argparse
import asyncio
import itertools
import json
import os
import ssl
import struct
import time
import zlib
from typing import Any
from urllib.parse import urlsplit

import httptools
import uvloop

_IDS = itertools.count(1)
_BACKLOG = 4_096


class Stats:
    def __init__(self) -> None:
        self.open = self.most_open = self.submits = self.pictures = 0
        self.first_at = self.full_at = self.last_answer_at = 0.0

    def opened(self) -> None:
        self.submits += 1
        self.open += 1
        self.first_at = self.first_at or time.time()
        if self.open > self.most_open:
            self.most_open, self.full_at = self.open, time.time()

    def answered(self) -> None:
        self.open -= 1
        self.last_answer_at = time.time()


class Connection(asyncio.Protocol):
    """One caller's connection, one call at a time."""

    def __init__(self, stats: Stats, latency: float, picture: bytes, base: str) -> None:
        self._stats, self._latency, self._picture, self._base = stats, latency, picture, base
        self._parser = httptools.HttpRequestParser(self)
        self._transport: Any = None
        self._url = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self._url = url

    def on_message_complete(self) -> None:
        path = urlsplit(self._url).path
        if path == b"/stats":
            self._answer(json.dumps(vars(self._stats)).encode(), b"application/json")
        elif path.startswith(b"/pictures/"):
            self._stats.pictures += 1
            self._answer(self._picture, b"image/png")
        else:
            self._stats.opened()
            asyncio.get_running_loop().call_later(self._latency, self._made)

    def _made(self) -> None:
        self._stats.answered()
        number = next(_IDS)
        body = {"status": "success", "id": number, "output": [f"{self._base}/pictures/{number}-0.png"]}
        self._answer(json.dumps(body).encode(), b"application/json")

    def _answer(self, body: bytes, kind: bytes) -> None:
        if not self._transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, len(body))
            self._transport.write(head + body)


def picture() -> bytes:
    """A whole PNG of grey noise, 512 x 288: 148 KB, as large as a drawn one."""
    width, height = 512, 288
    rows = b"".join(b"\x00" + os.urandom(width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    )


async def serve(port: int, latency: float, certificate: str | None) -> None:
    """With a certificate submits come over TLS to the port above; pictures and stats stay where they are."""
    stats, drawn, base = Stats(), picture(), f"http://127.0.0.1:{port}"
    loop = asyncio.get_running_loop()

    def connection() -> Connection:
        return Connection(stats, latency, drawn, base)

    servers = [await loop.create_server(connection, "127.0.0.1", port, backlog=_BACKLOG)]
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        servers.append(await loop.create_server(connection, "127.0.0.1", port + 1, backlog=_BACKLOG, ssl=context))
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="where it listens: loopback alone")
    parser.add_argument("--port", type=int, required=True, help="where it listens")
    parser.add_argument("--latency", type=float, default=10.0, help="seconds until a submit is answered (default 10)")
    parser.add_argument("--certificate", help="PEM file, key and all: submits over TLS on the port above too")
    arguments = parser.parse_args()
    uvloop.run(serve(arguments.port, arguments.latency, arguments.certificate))


if __name__ == "__main__":
    main()
