"""Who hears a run besides the screen: log.txt, metrics.jsonl, trackers."""

from __future__ import annotations

from collections.abc import Sequence

from limbeck._run.folder import RunFolder
from limbeck._show import figures
from limbeck.engine.listener import EpochEnd, Listener, StageStart, StepEnd


class Several(Listener):
    """Passes everything on to several listeners, in order."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self.listeners = listeners

    def on_stage(self, event: StageStart) -> None:
        """Passed on."""
        for listener in self.listeners:
            listener.on_stage(event)

    def on_step(self, event: StepEnd) -> None:
        """Passed on."""
        for listener in self.listeners:
            listener.on_step(event)

    def on_epoch(self, event: EpochEnd) -> None:
        """Passed on."""
        for listener in self.listeners:
            listener.on_epoch(event)

    def on_message(self, text: str) -> None:
        """Passed on."""
        for listener in self.listeners:
            listener.on_message(text)


class Diary(Listener):
    """Writes log.txt and metrics.jsonl.

    Args:
        folder: of the run.
        phase: whose epochs these are.
    """

    def __init__(self, folder: RunFolder, phase: str) -> None:
        self.folder, self.phase = folder, phase

    def on_stage(self, event: StageStart) -> None:
        """A line in the log."""
        self.folder.log(
            f"{self.phase}: stage {event.number + 1} {event.name!r}, {figures.count(event.epochs, 'epoch')} "
            f"of {figures.count(event.steps, 'step')}, {event.trainable:,} trained parameters"
        )

    def on_epoch(self, event: EpochEnd) -> None:
        """A line in the log, an entry in the metrics."""
        scores = "  ".join(
            f"{network} {name} {value:.4f}"
            for network, all in event.scores.items()
            for name, value in all.items()
        )
        head = f"{self.phase}: {event.stage_name} {event.epoch}/{event.epochs}"
        chosen = "  chosen" if event.chosen else ""
        self.folder.log(f"{head}  {figures.terms(event.terms)}  {scores}{chosen}")
        self.folder.add_metrics({"phase": self.phase, **event.stored()})

    def on_message(self, text: str) -> None:
        """A line in the log."""
        self.folder.log(f"{self.phase}: {text}")


class Trackers(Listener):
    """Sends the same figures to trackers by name, through Accelerate. Never asks anything.

    Args:
        names: as `[log] to` gives them.
        run: name of the run, its folder's.
        folder: where those that write files put them.
        phase: whose epochs these are.
    """

    def __init__(self, names: Sequence[str], run: str, folder: RunFolder, phase: str) -> None:
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        self.phase, self.epoch = phase, 0
        self.trackers = []
        for name in names:
            make = LOGGER_TYPE_TO_CLASS[name]
            own = {"logging_dir": str(folder.path / "trackers")} if make.requires_logging_directory else {}
            self.trackers.append(make(f"{run}-{phase}", **own))

    def on_epoch(self, event: EpochEnd) -> None:
        """Training and validation under one tag each, so that they share a chart."""
        self.epoch += 1
        values = {f"loss/{name}": value for name, value in event.terms.items()}
        for network, scores in event.scores.items():
            place = "score/validation" if len(event.scores) == 1 else f"score/validation/{network}"
            values |= {f"{place}/{name}": value for name, value in scores.items()}
        for tracker in self.trackers:
            tracker.log(values, step=self.epoch)

    def close(self) -> None:
        """Lets the trackers write what they hold back."""
        for tracker in self.trackers:
            tracker.finish()
