"""The steps that make a network that only answers faster."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from limbeck.errors import RequestError, nearest


@dataclass(frozen=True)
class Fast:
    """What is done to a copy of a teacher; nothing unless said.

    Args:
        fold: batch norms are folded into the layers before them.
        channels_last: pictures and weights lie with their channels last.
        bf16: products are computed in bfloat16; answers are float32.
        compile: `torch.compile`, in place.
    """

    fold: bool = False
    channels_last: bool = False
    bf16: bool = False
    compile: bool = False

    def names(self) -> list[str]:
        """The steps that are taken, in the order in which they are."""
        return [field.name for field in fields(self) if getattr(self, field.name)]

    @classmethod
    def of(cls, names: Iterable[str]) -> Fast:
        """From names, as a recipe gives them.

        Raises:
            RequestError: there is no such step, or one string is given in place of a list.
        """
        if isinstance(names, str):
            raise RequestError(f"steps {names!r} are one string; needed a list", fix=f"[{names!r}]")
        known = [field.name for field in fields(cls)]
        given = list(names)
        for name in given:
            if name not in known:
                raise RequestError(
                    f"there is no step {name!r} for a teacher; there are {', '.join(known)}",
                    near=nearest(name, known),
                )
        return cls(**dict.fromkeys(given, True))
