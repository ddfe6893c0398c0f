"""A claim that is worked on, as the stop and the metrics see it, and how far its answer has come."""

import time
from dataclasses import dataclass
from enum import Enum

from storage.dispatching import Claimed


class Phase(Enum):
    """What a task is at: a stop treats each differently (X1)."""

    STARTING = "starting"
    SUBMITTING = "submitting"
    POLLING = "polling"
    STORING = "storing"
    SETTLING = "settling"


@dataclass(slots=True)
class Work:
    claimed: Claimed
    phase: Phase = Phase.STARTING

    @property
    def unanswered(self) -> bool:
        """Its submit may be out, and nothing is known of it. What is being written down can be resumed instead; a
        picture that was made at once may have no id."""
        claimed = self.claimed
        return self.phase is Phase.SUBMITTING and claimed.provider_request_id is None and not claimed.output_urls


def boot_clock() -> float:
    """Seconds that go on counting while the machine sleeps, where the system has such a clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.clock_gettime(clock) if clock is not None else time.monotonic()
