"""A real server that speaks S3 (moto's), in a process of its own that tests may stop, freeze and lock."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping

from local import ports

KEY = "AKIASCENEWIRETEST"
SECRET = "the-secret-of-the-picture-store"
BUCKET = "pictures"
_PATIENCE = 60.0


class S3:
    def __init__(self) -> None:
        (self.port,) = ports.free(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """What a process needs to use it with `s3://pictures`."""
        return {
            "AWS_ENDPOINT": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """With one empty bucket; what it held before is gone."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self.call("PUT", f"/{BUCKET}")
                return
            except OSError:
                assert self._process.poll() is None, "the S3 server ended at once"
                assert time.monotonic() < deadline, f"no S3 server within {_PATIENCE:g} s"
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """It takes connections and answers nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def lock(self) -> None:
        """From now on nobody's key is known."""
        self.call("POST", "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})

    def unlock(self) -> None:
        self.call("POST", "/moto-api/reset-auth", b"inf", {"Content-Type": "text/plain"})

    def call(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        asked = urllib.request.Request(self.url + path, data=body, headers=dict(headers or {}), method=method)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            content: bytes = answer.read()
            return content
