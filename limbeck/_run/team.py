"""The processes of a run that a launcher started: one of them decides, writes and speaks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState

from limbeck.errors import LimbeckError

Value = TypeVar("Value")


class Team:
    """All processes of this run; one alone unless `accelerate launch` or torchrun started more."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.is_main = self.rank == 0

    def from_main(self, decide: Callable[[], Value]) -> Value:
        """What the main process decides, in all of them; what it raises is raised in all."""
        if self.size == 1:
            return decide()
        self._join()
        told: list[Any] = [None, None]
        if self.is_main:
            try:
                told[0] = decide()
            except LimbeckError as error:
                told[1] = error
        torch.distributed.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        decided: Value = told[0]
        return decided

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            self._join()
            torch.distributed.barrier()

    def part(self) -> None:
        """The end of working together: the main process goes on alone."""
        if self.size > 1:
            self.wait()
            torch.distributed.destroy_process_group()

    def _join(self) -> None:
        """Makes the group of processes, unless there is one."""
        PartialState(cpu=not torch.cuda.is_available())
