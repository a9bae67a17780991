"""The progress of a phase that counts samples: one live line on a terminal, plain lines in a pipe."""

from __future__ import annotations

import time

from limbeck._run.screen import EVERY, REDRAW, LiveLine, Screen, bar
from limbeck._show import figures


class CountLine:
    """Draws how many of something are done.

    Args:
        screen: where.
        name: of the phase.
        total: how many there are.
        after: planned seconds of the phases after it.
    """

    def __init__(self, screen: Screen, name: str, total: int, after: float) -> None:
        self.screen, self.name, self.total, self.after = screen, name, total, after
        self.began: tuple[float, int] | None = None
        self.spoke = time.monotonic()
        self.line = LiveLine(screen)

    def say(self, done: int) -> None:
        """So many are done; drawn now and then."""
        now = time.monotonic()
        if self.began is None:
            self.began = (now, done)
        if self.screen.quiet or now - self.spoke < (REDRAW if self.screen.live else EVERY):
            return
        self.spoke = now
        since, before = self.began
        speed = (done - before) / max(now - since, 1e-9)
        left = (self.total - done) / speed if speed else 0.0
        head = f"{done:,}/{self.total:,}"
        if not self.screen.live:
            self.screen.say(f"{self.name} {head} left {figures.clock(left + self.after)}")
            return
        text = f"{self.name:<9}{head}  {bar(done / max(self.total, 1))}"
        right = f"{speed:,.0f}/s  {figures.clock(left)}, all {figures.clock(left + self.after)}"
        self.line.draw(text, right)

    def close(self) -> None:
        """Takes the live line away."""
        self.line.close()

    def finish(self, now: int, seconds: float) -> None:
        """The line of the phase that is over.

        Args:
            now: how many of the total were done now, not before.
            seconds: that took.
        """
        self.close()
        if not now:
            self.screen.finished(self.name, f"{self.total:,} stored already", seconds)
            return
        before = f", {self.total - now:,} stored already" if now < self.total else ""
        speed = f"{now / max(seconds, 1e-9):,.0f} samples/s "
        left, right = f"{self.total:,}/{self.total:,}{before}", f"{speed}{figures.clock(seconds)}"
        self.screen.over(self.name, left, right)
