"""Files for the device: written, compared with the network, scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from limbeck._run.folder import RunFolder
from limbeck._run.session import Session
from limbeck.data.dataset import Dataset


@dataclass
class Exported:
    """A file for the device.

    Args:
        key: of run.json and of the closing table, as "onnx".
        file: in the folder of the run.
        runtime: what runs it.
        call: makes a call of one batch of inputs.
        about: what run.json says of it.
    """

    key: str
    file: str
    runtime: str
    call: Callable[[Any], Callable[[], object]]
    about: dict[str, Any] = field(default_factory=dict)


def export(session: Session, folder: RunFolder, network: nn.Module, data: Dataset) -> list[Exported]:
    return []
