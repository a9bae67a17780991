"""Keeps a training: the last state and the chosen weights, on disk or in memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from limbeck.engine import checkpoint
from limbeck.engine.process import gathered
from limbeck.engine.state import (
    Progress,
    Tool,
    copied,
    method_tensors,
    random_state,
    restore_method,
    restore_random_state,
    restore_tools,
    tool_state,
)
from limbeck.errors import RequestError, RunError
from limbeck.method import Method


class Keeper:
    """Writes and reads the state of one training.

    Args:
        folder: of the checkpoints; None keeps the chosen weights in memory only.
        accelerator: of the run; its main process writes.
        seed: of the run; a resume with another one is refused.
    """

    def __init__(self, folder: Path | None, accelerator: Accelerator, seed: int) -> None:
        self.folder, self.accelerator, self.seed = folder, accelerator, seed
        self.chosen: dict[str, Tensor] = {}
        self._kept: Path | None = None  # the chosen weights that the last state names
        self.written = time.monotonic()
        self._tensors: dict[str, Tensor] = {}
        self._tools: dict[str, Any] = {}
        self._random_pending = False

    def save(
        self, method: Method, progress: Progress, tools: dict[str, Tool], *, chosen: bool = False
    ) -> None:
        """Writes a checkpoint after a look at the weights: what is not finite is never kept.

        Raises:
            RunError: weights are not finite, or the disk does not take the files.
        """
        self.written = time.monotonic()
        weights = method_tensors(method)
        if not all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point()):
            raise RunError(
                "weights are not finite after this step",
                fix="a lower train.learning_rate or train.clip_norm = 1.0; the checkpoint before is kept",
            )
        if chosen or not self.chosen:
            self.chosen = {name: copied(value) for name, value in weights.items()}
        randoms = gathered(self.accelerator, random_state()) if self.folder is not None else []
        progress.position.writes += 1
        if self.folder is not None and self.accelerator.is_main_process:
            tensors, plain = tool_state(tools)
            for rank, state in enumerate(randoms):
                tensors |= {f"random.{rank}.{name}": value for name, value in state.items()}
            self._write(self.folder, tensors | weights, plain, progress, chosen)
        self.accelerator.wait_for_everyone()

    def _write(
        self, folder: Path, tensors: dict[str, Tensor], plain: Any, progress: Progress, chosen: bool
    ) -> None:
        number = f"{progress.position.writes:08d}"
        if chosen or self._kept is None:
            self._kept = checkpoint.write(folder, f"chosen-{number}", self.chosen, {})
        state = {"progress": progress.stored(), "tools": plain, "chosen": self._kept.name, "seed": self.seed}
        path = checkpoint.write(folder, f"last-{number}", tensors, state)
        checkpoint.prune(folder, "last", path)
        checkpoint.prune(folder, "chosen", self._kept)

    def restore(self, method: Method) -> Progress | None:
        """Puts the method back to the newest checkpoint; None when there is none yet.

        Raises:
            RequestError: no folder, a damaged file, another network or another seed.
        """
        if self.folder is None:
            raise RequestError("resume needs the folder of the run", fix='folder="runs/NAME/checkpoints"')
        found = checkpoint.all_of(self.folder, "last")
        if not found:
            return None
        # A kill may have left the one before, whole.
        path, older = found[-1], found[-2:-1]
        fix = f"remove {path}: --resume then goes on from {older[0].name}" if older else ""
        self._tensors, state = checkpoint.read(path, fix)
        if state["seed"] != self.seed:
            raise RequestError(
                f"{path} was trained with seed {state['seed']}, not {self.seed}",
                fix=f"seed = {state['seed']}",
            )
        self._kept = self.folder / state["chosen"]
        self.chosen = checkpoint.read(self._kept)[0]
        restore_method(method, self._tensors)
        self._tools, self._random_pending = state["tools"], True
        return Progress.restored(state["progress"])

    def restore_tools(self, tools: dict[str, Tool]) -> None:
        """Puts the optimizers and schedules of the stage that was under way back."""
        restore_tools(tools, self._tensors, self._tools)

    def restore_random(self) -> None:
        """Puts the generators back, the first time that it is called after a `restore`."""
        if self._random_pending:
            prefix = f"random.{self.accelerator.process_index}."
            mine = {n.removeprefix(prefix): t for n, t in self._tensors.items() if n.startswith(prefix)}
            restore_random_state(mine)
            self._random_pending = False
            self._tensors = {}
