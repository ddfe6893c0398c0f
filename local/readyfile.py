"""The ready file: where everything is, for scripts and tests. It exists only while all of it is up."""

from pathlib import Path

from pydantic import BaseModel

from local.state import write_private


class Process(BaseModel):
    """One running process. `pid` is the serving process itself; `url` is null where it speaks no HTTP."""

    name: str
    pid: int
    url: str | None


class ReadyFile(BaseModel):
    """URLs without trailing slash; `kafka` is host:port[,host:port]; `database` a libpq URI; `simulator` null when
    ModelsLab itself is used."""

    api: str
    push: str
    push_all: list[str]
    studio: str
    simulator: str | None
    kafka: str
    database: str
    jwt_secret: str
    jwt_audience: str | None
    user_id: str
    chapter_id: str
    token: str
    processes: list[Process]

    def write(self, file: Path) -> None:
        """Atomically; readable by us alone, because it holds a secret and a token."""
        write_private(file, self.model_dump_json(indent=2) + "\n")


def read(file: Path) -> ReadyFile:
    """Raises FileNotFoundError while the service is not up."""
    return ReadyFile.model_validate_json(file.read_text())


def remove(file: Path) -> None:
    file.unlink(missing_ok=True)
