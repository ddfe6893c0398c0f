"""client/'s own tests, and the package as others load it."""

import base64
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from local import node
from local.server import NotReady


@pytest.fixture(scope="session")
def built(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in its node_modules, as `npm install` of what `npm pack` makes would leave it."""
    # as in a fresh checkout
    shutil.rmtree(packages / "dist", ignore_errors=True)
    page = tmp_path_factory.mktemp("page")
    done = _run(*node.npm("pack", "--silent", "--pack-destination", str(page)), folder=packages)
    assert done.returncode == 0, done.stderr
    (packed,) = page.glob("*.tgz")
    scope = page / "node_modules" / "@scenewire"
    scope.mkdir(parents=True)
    with tarfile.open(packed) as archive:
        archive.extractall(scope, filter="data")
    (scope / "package").rename(scope / "client")
    for name in ("react", "@tanstack", "@types"):
        (page / "node_modules" / name).symlink_to(packages / "node_modules" / name)
    return page


def _run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=node.environment(), capture_output=True, text=True, timeout=180, check=False
    )


def _manifest() -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((node.CLIENT / "package.json").read_text(encoding="utf-8"))
    return manifest


def _entries() -> list[str]:
    return [name for name in _manifest()["exports"] if name != "./package.json"]


def test_its_own_tests_pass(packages: Path) -> None:
    done = _run(*node.npm("test", "--silent"), folder=packages)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_it_needs_nothing_at_run_time() -> None:
    assert "dependencies" not in _manifest()
    assert all(peer["optional"] for peer in _manifest()["peerDependenciesMeta"].values())


def test_what_is_packed_is_the_code_its_types_and_papers(built: Path) -> None:
    package = built / "node_modules" / "@scenewire" / "client"
    files = {path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {"package.json", "README.md", "dist/LICENSE"} <= files
    assert _named(_manifest()["exports"]) | {_manifest()[field] for field in ("main", "module", "types")} <= {
        f"./{file}" for file in files
    }
    assert {file.split("/")[0] for file in files} == {"package.json", "README.md", "dist"}


def _named(exports: dict[str, Any] | str) -> set[str]:
    """Every file that the manifest says there is."""
    return {exports} if isinstance(exports, str) else set().union(*map(_named, exports.values()))


def test_nothing_it_is_built_with_runs_code_when_it_is_installed() -> None:
    locked = json.loads((node.CLIENT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert [name for name, package in locked.items() if package.get("hasInstallScript")] == []


def test_the_lock_file_holds_hashes_and_no_addresses() -> None:
    locked = json.loads((node.CLIENT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    fetched = {name: package for name, package in locked.items() if name}
    assert fetched
    assert [name for name, package in fetched.items() if not package["integrity"].startswith("sha512-")] == []
    assert [name for name, package in fetched.items() if "resolved" in package] == []


@pytest.mark.parametrize("entry", _entries())
@pytest.mark.parametrize("how", ["import", "require"])
def test_every_entry_loads(built: Path, entry: str, how: str) -> None:
    name = "@scenewire/client" + entry.removeprefix(".")
    load = f'await import("{name}")' if how == "import" else f'require("{name}")'
    kind = "module" if how == "import" else "commonjs"
    code = f"console.log(Object.keys({load}).length)"
    done = _run(str(node.executable()), f"--input-type={kind}", "--eval", code, folder=built)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


@pytest.mark.parametrize("kind", ["module", "commonjs"])
def test_its_types_serve_both_kinds_of_modules(built: Path, packages: Path, kind: str) -> None:
    page = built / kind
    page.mkdir()
    (page / "package.json").write_text(json.dumps({"type": kind}))
    names = ["@scenewire/client" + entry.removeprefix(".") for entry in _entries()]
    imports = [f'import * as entry{number} from "{name}";' for number, name in enumerate(names)]
    uses = [f"export const loaded{number} = entry{number};" for number in range(len(names))]
    mistake = [
        "// @ts-expect-error a scene has a number",
        'entry0.connect({ pushUrl: "", getToken: () => null }).requestScene("", "1", { scene_description: "" });',
    ]
    (page / "page.ts").write_text("\n".join([*imports, *uses, *mistake]))
    options = {"module": "nodenext", "strict": True, "noEmit": True, "lib": ["es2022", "dom"], "types": []}
    (page / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["page.ts"]}))
    done = _run(str(node.executable()), str(packages / "node_modules/typescript/bin/tsc"), "-p", ".", folder=page)
    assert done.returncode == 0, done.stdout


class TestFetching:
    """What `python -m local.node` says where npm's packages cannot be had."""

    @pytest.fixture
    def unreachable(self, tmp_path: Path) -> Path:
        """A package whose one dependency lies nowhere."""
        # an absolute cache: npm reads a relative one, and variables, from wherever the tests were started
        settings = ["registry=http://127.0.0.1:9/", "fetch-retries=0", f"cache={tmp_path / 'cache'}"]
        (tmp_path / ".npmrc").write_text("\n".join(settings))
        manifest = {"name": "page", "version": "1.0.0", "devDependencies": {"nothing": "1.0.0"}}
        digest = base64.b64encode(bytes(64)).decode()
        locked = {"": manifest, "node_modules/nothing": {"version": "1.0.0", "integrity": f"sha512-{digest}"}}
        (tmp_path / "package.json").write_text(json.dumps(manifest))
        lock = {"name": "page", "version": "1.0.0", "lockfileVersion": 3, "requires": True, "packages": locked}
        (tmp_path / "package-lock.json").write_text(json.dumps(lock))
        return tmp_path

    def test_one_sentence_is_said(self, unreachable: Path) -> None:
        with pytest.raises(NotReady, match=rf"^npm could not fetch the packages of {unreachable.name}/: npm error"):
            node.run("test", folder=unreachable)

    def test_what_was_fetched_for_this_lock_file_is_not_fetched_again(self, tmp_path: Path) -> None:
        (tmp_path / "package.json").write_text(json.dumps({"scripts": {"seven": "node -e 'process.exit(7)'"}}))
        (tmp_path / "package-lock.json").write_text(json.dumps({"lockfileVersion": 3, "packages": {"": {}}}))
        assert node.run("seven", folder=tmp_path) == 7
        (stamp,) = (tmp_path / "node_modules").glob(".of-*")
        made = stamp.stat().st_mtime_ns
        assert node.run("seven", folder=tmp_path) == 7
        assert stamp.stat().st_mtime_ns == made

    def test_scripts_find_the_wheels_node_first(self) -> None:
        found = node.environment({"PATH": "/usr/bin"})["PATH"].split(os.pathsep)
        assert found == [str(node.executable().parent), "/usr/bin"]
