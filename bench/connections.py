"""What a call outside costs when thousands are open: one pool against pools of 100, over aiohttp and over httpcore.

    .venv/bin/python bench/connections.py                       # 400 and 4,000 calls at once, over aiohttp
    .venv/bin/python bench/connections.py --over httpcore --calls 4000 --pools

The provider is a server of our own that answers after five seconds, as a synchronous generation does; each caller makes
three calls in a row, the later ones over connections that stand. CPU is this process's alone.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from consumer.lines import Lines

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b'{"status":"success"}'
_ROUNDS = 3
_POOL = 100
_PATIENCE = {"connect": 300.0, "pool": 300.0, "write": 300.0, "read": 300.0}


def answer_late(seconds: float, ports: Any) -> None:
    """A server in a process of its own; it puts its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                await reader.readexactly(len(b"{}"))
                await asyncio.sleep(seconds)
                writer.write(_ANSWER)
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=8192)
        ports.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(run())


def transports(over: str, count: int) -> list[httpx.AsyncBaseTransport]:
    if over == "aiohttp":
        return [Lines() for _ in range(count)]
    limits = httpx.Limits(max_connections=None if count == 1 else _POOL, max_keepalive_connections=None)
    return [httpx.AsyncHTTPTransport(limits=limits) for _ in range(count)]


async def measure(over: str, calls: int, *, pools: bool, url: str) -> tuple[float, float]:
    """CPU a call in ms, and seconds for all."""
    lines = transports(over, max(1, calls // _POOL) if pools else 1)

    async def caller(number: int) -> None:
        line = lines[number % len(lines)]
        for _ in range(_ROUNDS):
            request = httpx.Request("POST", url, content=b"{}", extensions={"timeout": _PATIENCE})
            response = await line.handle_async_request(request)
            await response.aread()
            await response.aclose()

    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(calls)))
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    for line in lines:
        await line.aclose()
    return cpu * 1000 / (calls * _ROUNDS), took


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench/connections.py", description=str(__doc__).splitlines()[0])
    parser.add_argument("--over", choices=["aiohttp", "httpcore"], default="aiohttp", help="default: %(default)s")
    parser.add_argument("--calls", type=int, nargs="+", default=[400, 4000], help="calls open at once")
    parser.add_argument("--pools", action="store_true", help=f"only pools of {_POOL} (default: one pool, then those)")
    parser.add_argument("--seconds", type=float, default=5.0, help="until an answer (default: %(default)s)")
    asked = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ports: Any = multiprocessing.Queue()
    server = multiprocessing.Process(target=answer_late, args=(asked.seconds, ports), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ports.get()}/"
    print(f"| {asked.over}, calls open | pools | CPU a call | all {_ROUNDS} rounds |\n| --- | --- | --- | --- |")
    for calls in asked.calls:
        for pools in [True] if asked.pools else [False, True]:
            cost, took = uvloop.run(measure(asked.over, calls, pools=pools, url=url))
            print(f"| {calls} | {f'of {_POOL}' if pools else 'one'} | {cost:.2f} ms | {took:.0f} s |", flush=True)
    server.terminate()


if __name__ == "__main__":
    main()
