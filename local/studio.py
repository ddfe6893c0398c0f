"""The studio's page, built from client/: `python -m local.studio`.

The built page is part of the checkout (client/studio/page), so that it is there without Node and without a network. It
says which sources it was built from; where these are others now, it is built again.
"""

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from local import node
from local.python import CHECKOUT
from local.server import NotReady

CLIENT = CHECKOUT / "client"
PAGE = CLIENT / "studio" / "page"
_BUILT_FROM = "built-from"
_SOURCES = ("package-lock.json", "src/**/*", "studio/*.*", "studio/src/**/*", "studio/public/**/*")


def sources(client: Path = CLIENT) -> str:
    """A digest of all that the page is built from."""
    digest = hashlib.sha256()
    for path in sorted({path for pattern in _SOURCES for path in client.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(client).as_posix()}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def is_current(client: Path = CLIENT) -> bool:
    """Whether the built page is of the sources as they are."""
    try:
        return (client / "studio" / "page" / _BUILT_FROM).read_text().strip() == sources(client)
    except FileNotFoundError:
        return False


def build() -> None:
    """Build the page. Raises NotReady where Node's packages cannot be had, or the sources are wrong."""
    node.install()
    command = node.npm("run", "--silent", "studio")
    done = subprocess.run(command, cwd=CLIENT, env=node.environment(), capture_output=True, text=True)
    if done.returncode:
        raise NotReady(f"The studio could not be built: {(done.stderr or done.stdout).strip()[:2000]}")
    (PAGE / _BUILT_FROM).write_text(f"{sources()}\n")


def refresh(*, must: bool, is_current: Callable[[], bool] = is_current, build: Callable[[], None] = build) -> int:
    """Build the page where it is not current; an exit status. Unless it `must`, what was built last is good enough."""
    if is_current():
        return 0
    try:
        build()
    except NotReady as reason:
        print(reason, file=sys.stderr)
        if must or not (PAGE / "index.html").exists():
            return 1
        print("The studio is served as it was built last.", file=sys.stderr)
        return 0
    print(f"Built the studio: {PAGE.relative_to(CHECKOUT)}")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.studio",
        description="Build the studio's page (client/studio/page) where its sources have changed since it was built.",
        epilog="Exit status: 0 when the page is current or, without --must, the one built last is there; else 1.",
    )
    parser.add_argument("--must", action="store_true", help="fail where it cannot be built, instead of saying so")
    return refresh(must=parser.parse_args().must)


if __name__ == "__main__":
    sys.exit(main())
