"""Stopping at a step boundary: a signal only raises a flag, which the trainer reads where it is safe to save.

Imports no torch: supervisors know a run's endings by it.
"""

import signal
from types import FrameType, TracebackType

EXIT_PART_FAILED = 75
"""The status of a process that ends since another process of its run has; EX_TEMPFAIL of sysexits.h: try again."""


class Interruption:
    """While active, SIGINT, SIGTERM and SIGUSR2 set `signal_name`; a second SIGINT interrupts at once, without saving.

    SIGUSR2 is what a cluster is asked to send before it takes the machines away.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    NAMES = tuple(number.name for number in SIGNALS)

    def __init__(self) -> None:
        self.signal_name: str | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal_name == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_name = signal.Signals(number).name
