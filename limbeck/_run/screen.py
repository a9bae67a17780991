"""The progress of a run on a console: one live line a phase on a terminal, plain lines in a pipe."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from limbeck._run import console
from limbeck._run.console import Manner
from limbeck._show import figures
from limbeck.engine.listener import EpochEnd, Listener, StageStart, StepEnd

EVERY = 30.0  # seconds between two lines of a long epoch in a pipe
REDRAW = 0.1  # seconds between two states of the live line
_BAR = 12


class Screen:
    """Where a run says what it does; silent where `quiet`.

    Args:
        stream: all of it goes there; stderr unless given.
        quiet: say nothing.
        verbose: say what goes to log.txt, too; then nothing is redrawn.
        live: redraw one line; by default on a terminal that can.
        width: of a line; by default the terminal's, 80 in a pipe.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        quiet: bool = False,
        verbose: bool = False,
        live: bool | None = None,
        width: int | None = None,
    ) -> None:
        self.stream = stream or sys.stderr
        self.quiet = quiet
        self.verbose = verbose
        self.live = not (verbose or console.steady(self.stream)) if live is None else live
        self.console = Console(file=self.stream, highlight=False, width=width, force_terminal=live)
        self.width = min(self.console.width, 100) if self.live else width or 80

    def say(self, text: str) -> None:
        """One or more lines."""
        if not self.quiet:
            self.stream.write(text + "\n")
            self.stream.flush()

    def warn(self, text: str) -> None:
        """A warning; it is said also where nothing else is."""
        console.warn(text)

    def phase(
        self, name: str, epochs: int, kind: str, score_name: str, after: float, done: int = 0
    ) -> PhaseLine:
        """The line of one phase of training.

        Args:
            name: of the phase.
            epochs: of all its stages together.
            kind: of the task.
            score_name: the figure of a network that is shown.
            after: planned seconds of the phases after it.
            done: epochs that were over before a resume.
        """
        return PhaseLine(self, name, epochs, kind, score_name, after, done)

    def finished(self, name: str, text: str, seconds: float) -> None:
        """The line of a phase that is over, its time at the right edge."""
        self.over(name, text, figures.clock(seconds))

    def over(self, name: str, text: str, right: str) -> None:
        """The line of a phase that is over, with what stands at its right edge."""
        self.say(beside(f"{name:<9}{text}", right, 80))


def beside(left: str, right: str, width: int) -> str:
    """Two texts on a line, the second at its right edge."""
    return f"{left}{right.rjust(max(width - len(left), len(right) + 1))}"


def bar(share: float) -> str:
    """`[####--------]`, of a share from 0 to 1."""
    filled = round(_BAR * min(share, 1.0))
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"


class LiveLine:
    """One line of a terminal that is drawn again and again.

    Args:
        screen: where.
    """

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self._line: Live | None = None

    def draw(self, left: str, right: str) -> None:
        """Two texts in place of what stood there, the second at the right edge."""
        if self._line is None:
            self._line = Live(
                console=self.screen.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._line.start()
        text = beside(left, right, self.screen.width - 1)
        self._line.update(Text(text, no_wrap=True), refresh=True)

    def close(self) -> None:
        """Takes the line away."""
        if self._line is not None:
            self._line.stop()
            self._line = None


class PhaseLine(Listener):
    """Draws what the loop tells of one phase."""

    def __init__(
        self, screen: Screen, name: str, epochs: int, kind: str, score_name: str, after: float, done: int
    ) -> None:
        self.screen, self.name, self.epochs = screen, name, max(epochs, 1)
        self.kind, self.score_name, self.after = kind, score_name, after
        self.done, self.part = done, 0.0
        self.stages: dict[int, str] = {}
        self.began: tuple[float, float] | None = None  # time and share at the first step seen here
        self.spoke = time.monotonic()
        self.speed = 0.0
        self.samples, self.since = 0, time.monotonic()
        self.last: EpochEnd | None = None
        self.line = LiveLine(screen)

    def on_stage(self, event: StageStart) -> None:
        """Remembers the stage's name, shown where there are several."""
        self.stages[event.number] = event.name

    def on_step(self, event: StepEnd) -> None:
        """Redraws the live line, or says where a long epoch stands."""
        now = time.monotonic()
        if self.began is None:
            if event.stage == 0:
                self.done = event.epoch - 1
            self.began = (now, self.done + self._share(event.step, event.steps))
            self.since = now
        else:
            self.samples += event.samples
        if self.screen.quiet or now - self.spoke < (REDRAW if self.screen.live else EVERY):
            return
        self.spoke = now
        self.part = self._share(event.step, event.steps)
        values = {name: float(value) for name, value in event.terms.items()}
        text = figures.terms(values)
        if self.screen.live:
            self._draw(text)
        else:
            self.screen.say(self._plain(text))

    def on_epoch(self, event: EpochEnd) -> None:
        """Counts the epoch; in a pipe it is a line."""
        now = time.monotonic()
        self.done += 1
        self.part, self.last = 0.0, event
        if self.samples:
            self.speed = self.samples / max(now - self.since, 1e-9)
        if not self.screen.live and not self.screen.quiet and self.done < self.epochs:
            self.spoke = now
            self.screen.say(self._plain(f"{self._score(event)}{figures.terms(event.terms)}"))

    def on_message(self, text: str) -> None:
        """A line of the loop's, above the live one."""
        self.close()
        self.screen.say(text)

    def _share(self, step: int, steps: int) -> float:
        return (step + 1) / max(steps, 1)

    def _left(self) -> float:
        """Seconds left of this phase, by the speed since the first step seen here."""
        if self.began is None:
            return 0.0
        started, share = self.began
        now = self.done + self.part
        return (time.monotonic() - started) / max(now - share, 1e-6) * max(self.epochs - now, 0.0)

    def _score(self, event: EpochEnd) -> str:
        first = next(iter(event.scores.values()), None)
        return "" if first is None else f"validation {figures.score(self.kind, first[self.score_name])}  "

    def _head(self) -> str:
        """`13/20`, with the stage where there are several."""
        stage = f" {list(self.stages.values())[-1]}" if len(self.stages) > 1 else ""
        return f"{self.done}/{self.epochs}{stage}"

    def _plain(self, text: str) -> str:
        left = self._left()
        return f"{self.name} {self._head()} {' '.join(text.split())} left {figures.clock(left + self.after)}"

    def _draw(self, text: str) -> None:
        left = self._left()
        speed = self.samples / max(time.monotonic() - self.since, 1e-9)
        right = f"{speed:,.0f}/s  {figures.clock(left)}, all {figures.clock(left + self.after)}"
        start = f"{self.name:<9}{self._head()}  {bar((self.done + self.part) / self.epochs)}  "
        room = max(self.screen.width - len(start) - len(right) - 2, 0)
        self.line.draw(f"{start}{text[:room]}", right)

    def close(self) -> None:
        """Takes the live line away."""
        self.line.close()

    def finish(self, seconds: float, score: float | None, done: int) -> None:
        """The live line becomes the final one.

        Args:
            seconds: that the phase took.
            score: of the chosen epoch on validation data.
            done: epochs of the whole phase, those before a resume too.
        """
        self.close()
        parts = [f"{done}/{self.epochs}"]
        if score is not None:
            parts.append(f"validation {figures.score(self.kind, score)}")
        if self.last is not None:
            parts.append(figures.terms(self.last.terms))
        speed = f"{self.speed:,.0f} samples/s " if self.speed else ""
        right = f"{speed}{figures.clock(seconds)}"
        left = f"{self.name:<9}{'  '.join(parts)}"
        self.screen.say(beside(left[: 79 - len(right)], right, 80))


def screen_for(manner: Manner) -> Screen:
    """The screen of the command: stderr, and nothing where only results are wanted."""
    return Screen(quiet=manner.quiet, verbose=manner.verbose and not manner.quiet)


def silent() -> Screen:
    """A screen that says nothing."""
    return Screen(quiet=True, live=False)
