"""Ctrl-C that is not lost: some library's `except:` or finalizer may swallow the first `KeyboardInterrupt`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class _Stop:
    """The handler of SIGINT; it remembers that it was called."""

    came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


@contextmanager
def remembering() -> Iterator[None]:
    """Remember Ctrl-C while the block runs, in the main thread; a job that is to ignore it goes on so."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    before = signal.signal(signal.SIGINT, _Stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def check_stopped() -> None:
    """Between two pieces of work, raise again the interrupt that came while the last one ran.

    Raises
    ------
    KeyboardInterrupt : Ctrl-C was pressed, and the work went on.
    """
    handler = signal.getsignal(signal.SIGINT)
    if isinstance(handler, _Stop) and handler.came:
        raise KeyboardInterrupt
