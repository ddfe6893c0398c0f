"""Write the papers that are made from the code: `make docs`, or `python -m docs.generate`.

A test holds the files against what this would write.
"""

from collections.abc import Callable
from pathlib import Path

from docs import asyncapi, configuration, contract_types

FOLDER = Path(__file__).resolve().parent

PAPERS: dict[str, Callable[[], str]] = {
    "asyncapi.yaml": asyncapi.render,
    "configuration.md": configuration.render,
    "../client/src/contract.ts": contract_types.render,
}


def main() -> None:
    for name, render in PAPERS.items():
        (FOLDER / name).write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
