"""What the user of a file for the device has to know, kept inside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck.models.preprocessing import Preprocessing

#: Under which a file keeps its facts as JSON.
KEY = "limbeck"


@dataclass(frozen=True)
class Facts:
    """How inputs of a file are made and its outputs are read.

    Attributes:
        classes: names of the outputs.
        kind: what an output means, as `Task.kind`.
        reading: how a raw sample becomes an input, as `Splits.reading`.
        preprocessing: what is left to do before the file; "identity" where the graph holds it all.
        names: of the inputs, in their order.
    """

    classes: Sequence[str] = ()
    kind: str = "classes"
    reading: Mapping[str, Any] = field(default_factory=lambda: {"kind": "tensor"})
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    names: Sequence[str] = ("inputs",)

    def to_json(self) -> str:
        """As one line."""
        plain = {
            "classes": list(self.classes),
            "kind": self.kind,
            "reading": dict(self.reading),
            "preprocessing": self.preprocessing.to_dict(),
            "names": list(self.names),
        }
        return json.dumps(plain, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """From what `to_json` gave."""
        plain = json.loads(text)
        return cls(**{**plain, "preprocessing": Preprocessing.from_dict(plain["preprocessing"])})
