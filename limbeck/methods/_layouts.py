"""How values of layers lie on the picture: maps, channels last, tokens, lines, vectors; all become maps."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from torch import Tensor

from limbeck.adaptors import grid
from limbeck.errors import RequestError, nearest

Form = Literal["bchw", "bhwc", "blc", "line", "bc"]
_AXES: Mapping[str, tuple[int, str]] = {
    "bchw": (4, "[B, C, H, W]"),
    "bhwc": (4, "[B, H, W, C]"),
    "blc": (3, "[B, L, C]"),
    "line": (3, "[B, L, C]"),
    "bc": (2, "[B, C]"),
}
_WORD = re.compile(r"prefix=(?P<prefix>-?\d+)|grid=(?P<rows>\d+)x(?P<columns>\d+)")


@dataclass(frozen=True)
class Layout:
    """The layout of one layer's value; it makes a map of it.

    Args:
        form: `bchw` a map; `bhwc` a map with channels last; `blc` tokens, row by row; `line` tokens of a
            sequence, a map one row high; `bc` a vector, a map of one cell.
        prefix: of tokens, how many stand before the grid (class, distillation, registers).
        grid: of `blc`, rows and columns; a square unless given.
    """

    form: Form
    prefix: int = 0
    grid: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str, layer: str) -> Layout:
        """Reads `FORM [prefix=P] [grid=HxW]`, as "blc prefix=1 grid=3x5".

        Raises:
            RequestError: another word, a negative prefix, or one that does not go with the form.
        """
        form, *words = text.split() or [""]
        given: dict[str, Any] = {}
        for word in words:
            found = _WORD.fullmatch(word)
            if found is None:
                raise _wrong(text, layer, f"{word!r} is neither prefix=NUMBER nor grid=ROWSxCOLUMNS")
            if found["prefix"] is None:
                given["grid"] = int(found["rows"]), int(found["columns"])
            else:
                given["prefix"] = int(found["prefix"])
        if form not in get_args(Form):
            near = nearest(form, get_args(Form))
            raise _wrong(text, layer, f"there is no form {form!r}", near=near)
        if given.get("prefix", 0) < 0:
            raise _wrong(text, layer, "the number of tokens before the grid must be at least 0")
        if (given and form not in ("blc", "line")) or ("grid" in given and form != "blc"):
            raise _wrong(text, layer, "prefix is for blc and line, grid for blc alone")
        return cls(cast(Form, form), **given)

    @classmethod
    def read_off(cls, shape: Sequence[int], picture: tuple[int, int] | None, layer: str) -> Layout:
        """The only layout that a shape can have, given the size of the pictures.

        A map has the proportions of its picture. [B, N, N, N] of square pictures is taken as `bchw`. Tokens
        of square pictures are a square after at most two tokens.

        Raises:
            RequestError: several, or none.
        """
        fits: list[Layout] = []
        if len(shape) == 2:
            fits = [cls("bc")]
        elif len(shape) == 4 and picture is not None:
            sizes: dict[Form, Sequence[int]] = {"bchw": shape[2:], "bhwc": shape[1:3]}
            fits = [cls(form) for form, size in sizes.items() if _alike(size, picture)]
            if picture[0] == picture[1]:
                fits = fits[:1]
        elif len(shape) == 3 and picture is not None and picture[0] == picture[1] and grid(shape[1]):
            fits = [cls("blc", prefix=shape[1] - grid(shape[1]) ** 2)]
        if len(fits) != 1:
            of = (
                "of inputs that are no pictures"
                if picture is None
                else "of pictures {} x {}".format(*picture)
            )
            kinds = "no layout" if not fits else "several layouts"
            raise RequestError(
                f"layer {layer!r} gives {tuple(shape)}, which fits {kinds} {of}", fix=_declare(layer)
            )
        return fits[0]

    @property
    def text(self) -> str:
        """What `parse` reads."""
        words = [f"prefix={self.prefix}"] if self.prefix else []
        if self.grid is not None:
            words.append("grid={}x{}".format(*self.grid))
        return " ".join([self.form, *words])

    def sides(self, shape: Sequence[int], layer: str) -> tuple[int, int, int]:
        """Channels, height and width of the map that a value of some shape becomes.

        Raises:
            RequestError: another rank, or tokens that are not the grid.
        """
        axes, form = _AXES[self.form]
        if len(shape) != axes:
            raise RequestError(
                f"layer {layer!r} gives {tuple(shape)}; the layout {self.form} is {form}", fix=_declare(layer)
            )
        if self.form == "bc":
            return shape[1], 1, 1
        if self.form == "bchw":
            return shape[1], shape[2], shape[3]
        if self.form == "bhwc":
            return shape[3], shape[1], shape[2]
        tokens = shape[1] - self.prefix
        if self.form == "line":
            height, width = 1, tokens
        else:
            height, width = self.grid or (math.isqrt(max(tokens, 0)),) * 2
        if tokens < 1 or height * width != tokens:
            raise RequestError(
                f"layer {layer!r} gives {tuple(shape)}: {shape[1]} tokens less {self.prefix} before the grid "
                f"are not {height} x {width}",
                fix=_declare(layer),
            )
        return shape[2], height, width

    def to_map(self, value: Tensor, layer: str) -> Tensor:
        """A value as [B, C, H, W]; tokens before the grid are left out.

        Raises:
            RequestError: another rank or number of tokens, or values that are not real numbers.
        """
        if not value.is_floating_point():
            kind = str(value.dtype).removeprefix("torch.")
            raise RequestError(f"layer {layer!r} holds {kind}; needed real numbers", fix="tap another layer")
        channels, height, width = self.sides(value.shape, layer)
        if self.form == "bchw":
            return value
        if self.form == "bhwc":
            return value.permute(0, 3, 1, 2)
        if self.form == "bc":
            return value[:, :, None, None]
        return value[:, self.prefix :].transpose(1, 2).reshape(len(value), channels, height, width)


def layouts_of(
    shapes: Mapping[str, Sequence[int]],
    declared: Mapping[str, str],
    picture: tuple[int, int] | None,
    side: str,
) -> dict[str, Layout]:
    """The layout of each layer of a network: as declared, else read off its shape.

    Args:
        shapes: of a dry batch, by layer.
        declared: see `Layout.parse`, by layer.
        picture: see `picture_of`.
        side: "student" or "teacher", for messages.
    """
    for layer in declared:
        if layer not in shapes:
            raise RequestError(
                f"layouts name {layer!r}, which is not tapped in the {side}",
                near=nearest(layer, shapes) or list(shapes),
            )
    found = {}
    for layer, shape in shapes.items():
        text = declared.get(layer)
        where = f"{side} {layer}"
        layout = Layout.read_off(shape, picture, where) if text is None else Layout.parse(text, where)
        layout.sides(shape, where)
        found[layer] = layout
    return found


def picture_of(batch: Mapping[str, Any]) -> tuple[int, int] | None:
    """Height and width of the pictures in a batch in normal form; None where its inputs are no pictures."""
    inputs = batch["inputs"]
    values = inputs.values() if isinstance(inputs, Mapping) else [inputs]
    pictures = [value for value in values if isinstance(value, Tensor) and value.ndim == 4]
    return (pictures[0].shape[2], pictures[0].shape[3]) if len(pictures) == 1 else None


def _alike(size: Sequence[int], picture: tuple[int, int]) -> bool:
    """Whether a map has the proportions of a picture; odd sizes round by up to one cell."""
    (rows, columns), (height, width) = size, picture
    if rows == columns or height == width:
        return rows == columns
    return abs(rows - columns * height / width) <= 1


def _declare(layer: str) -> str:
    side, _, path = layer.rpartition(" ")
    return (
        f'layouts = {{ {side or "student"} = {{ "{path}" = "blc prefix=1 grid=3x5" }} }}, or bchw, bhwc, bc'
    )


def _wrong(text: str, layer: str, why: str, near: Sequence[str] = ()) -> RequestError:
    return RequestError(
        f"layout {text!r} of layer {layer!r}: {why}; needed bchw, bhwc, bc, or blc and line with tokens "
        "before the grid",
        near=near,
        fix=_declare(layer),
    )
