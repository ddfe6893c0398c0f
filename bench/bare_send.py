"""What the kernel takes for one frame to one socket, whoever sends it: the floor under all figures of a delivery."""

import os
import socket
import time

from cores import LOAD_CORE, SERVER_CORE


def bare_send(sockets: int, size: int) -> float:
    """CPU in us, user and system, of one `send` of so many bytes; each of the sockets gets one. On the server's core,
    which has to be free."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        pairs = []
        for _ in range(sockets):
            client = socket.create_connection(listening.getsockname())
            pairs.append((client, listening.accept()[0]))
    frame = bytes(size)
    os.sched_setaffinity(0, {SERVER_CORE})
    try:
        for _, server in pairs[: sockets // 10]:
            server.send(frame)
        before = time.process_time()
        for _, server in pairs:
            server.send(frame)
        return (time.process_time() - before) / sockets * 1e6
    finally:
        os.sched_setaffinity(0, {LOAD_CORE})
        for client, server in pairs:
            client.close()
            server.close()
