"""Turns: work in a thread of its own that goes on only while it is waited for, as a coroutine would.

For what cannot give control away by itself, such as the forward pass of somebody else's model in the middle
of its layers. Never do both run at once. Not here: what is done (`probe`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["Over", "Turns"]


class Over(Exception):
    """Raised where the work waits, when nobody will wait for it any more."""


class Turns:
    """`work` is called with a function that gives control back, until the next `go_on`."""

    def __init__(self, work: Callable[[Callable[[], None]], None]) -> None:
        self.ended = False
        self._closing = False
        self._error: BaseException | None = None
        self._may_go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    @property
    def here(self) -> bool:
        """Whether it is the work that asks."""
        return threading.current_thread() is self._thread

    def go_on(self) -> None:
        """Let the work go on until it gives control back, or ends.

        Raises:
            Exception: what the work raised.
        """
        self._may_go.release()
        self._stands.acquire()
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Let the work end where it waits."""
        self._closing = True
        self._may_go.release()
        self._thread.join()

    def _run(self, work: Callable[[Callable[[], None]], None]) -> None:
        try:
            self._wait()
            work(self._give)
        except Over:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self.ended = True
            self._stands.release()

    def _give(self) -> None:
        self._stands.release()
        self._wait()

    def _wait(self) -> None:
        self._may_go.acquire()
        if self._closing:
            raise Over
