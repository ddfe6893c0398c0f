"""What `make demo` shows: a live board on a terminal, one line per change anywhere else."""

import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console, Group
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from local.chapter import Scene
from schemas.statuses import ImageStatus
from schemas.words import Stage, Status

_WORDS = {
    Stage.QUEUED: "waiting in line",
    Stage.SUBMITTING: "sending to the image model",
    Stage.GENERATING: "painting the picture",
    Stage.STORING: "saving the picture",
    Stage.RETRY_WAIT: "waiting for another try",
    Stage.PROVIDER_PAUSED: "the provider is paused",
    Stage.DONE: "done",
}
# columns of the terminal
_TITLE_LEAST, _TITLE_MOST = 12, 40
_STAGE = max(map(len, _WORDS.values()))
_BAR = 14
_REST = 19  # mark, time, tries and the gaps


@dataclass(slots=True)
class Row:
    """One scene on its way. `image` is the newest version that was pushed; times are monotonic seconds."""

    scene: Scene
    record_id: str | None = None
    image: ImageStatus | None = None
    asked_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None
    versions: int = 0

    @property
    def ended(self) -> bool:
        return self.image is not None and self.image.status.terminal

    @property
    def seconds(self) -> float:
        return (self.ended_at or time.monotonic()) - self.asked_at

    def see(self, image: ImageStatus) -> None:
        self.image = image
        self.versions += 1
        if image.status.terminal and self.ended_at is None:
            self.ended_at = time.monotonic()

    def words(self) -> str:
        if self.image is None:
            return "requesting" if self.record_id is None else "accepted"
        if self.image.status is Status.COMPLETED:
            return "ready"
        if self.image.status.terminal:
            return self.image.status.value
        if self.image.stage is Stage.RETRY_WAIT and self.image.retry_at is not None:
            left = max(0.0, (self.image.retry_at - datetime.now(UTC)).total_seconds())
            return f"trying again in {left:.0f} s"
        return _WORDS.get(self.image.stage or Stage.QUEUED, "in progress")


class Board:
    """Draws the rows. On a terminal it is what `rich.live.Live` renders; otherwise `tell` prints a changed row."""

    def __init__(self, console: Console, title: str, rows: list[Row]) -> None:
        self._console = console
        self._title = title
        self._rows = rows
        self._spinner = Spinner("dots")
        self._told: dict[int, str] = {}

    def tell(self, row: Row) -> None:
        words = row.words()
        if row.image is None or self._told.get(row.scene.scene_number) == words:
            return
        self._told[row.scene.scene_number] = words
        retries = f", retry {row.image.retry_count} of 3" if row.image.retry_count else ""
        self._console.print(
            f"{row.seconds:6.1f} s  scene {row.scene.scene_number}: {words} ({row.image.progress}%{retries})",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    def render(self) -> Group:
        table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
        table.add_column("", width=1)
        # titles give way: a terminal of 80 columns has room for the rest
        titles = max(_TITLE_LEAST, min(_TITLE_MOST, self._console.width - _STAGE - _BAR - _REST))
        table.add_column("scene", no_wrap=True, overflow="ellipsis", width=titles)
        table.add_column("stage", no_wrap=True, min_width=_STAGE)
        table.add_column("progress", min_width=_BAR)
        table.add_column("time", justify="right", no_wrap=True, min_width=7)
        table.add_column("tries", justify="right", min_width=5)
        for row in self._rows:
            progress = row.image.progress if row.image else 0
            tries = row.image.retry_count + 1 if row.image else ""
            table.add_row(
                self._mark(row),
                Text(f"{row.scene.scene_number}  {row.scene.title}"),
                Text(row.words(), style=self._colour(row)),
                ProgressBar(
                    total=100, completed=progress, width=_BAR, complete_style=self._colour(row), finished_style="green"
                ),
                f"{row.seconds:.1f} s",
                str(tries),
            )
        ready = sum(row.image is not None and row.image.status is Status.COMPLETED for row in self._rows)
        return Group(
            Text(self._title, style="bold"), table, Text(f"{ready} of {len(self._rows)} pictures", style="dim")
        )

    def _mark(self, row: Row) -> Text | Spinner:
        if not row.ended:
            return self._spinner
        good = row.image is not None and row.image.status is Status.COMPLETED
        return Text("✓", style="green") if good else Text("✗", style="red")

    def _colour(self, row: Row) -> str:
        if row.image is None:
            return "dim"
        if row.ended:
            return "green" if row.image.status is Status.COMPLETED else "red"
        return "yellow" if row.image.stage in (Stage.RETRY_WAIT, Stage.PROVIDER_PAUSED) else "cyan"
