"""The augmentations that a recipe can name, with their options. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from limbeck.errors import RequestError, nearest


def _rising(pair: list[float]) -> list[float]:
    if pair[0] > pair[1]:
        raise ValueError("the smaller number comes first")
    return pair


def _within_one(pair: list[float]) -> list[float]:
    if pair[1] > 1:
        raise ValueError("a part of the picture is at most 1")
    return pair


Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[
    list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2), AfterValidator(_rising)
]
Shares = Annotated[Pair, AfterValidator(_within_one)]


class Augment(BaseModel):
    """An augmentation of pictures with its options.

    Attributes:
        by_place: it depends on the place alone, so it changes unaugmented pictures too.
        unit_range: it is for pixels from 0 to 1 alone.
        needs: the package that does it, and the extra that installs this.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    by_place: ClassVar[bool] = False
    unit_range: ClassVar[bool] = False
    needs: ClassVar[tuple[str, str] | None] = None

    name: str
    """Of the augmentation."""

    def described(self) -> str:
        """Name and all options."""
        options = {key: value for key, value in self.model_dump().items() if key != "name"}
        return f"{self.name}({', '.join(f'{key}={value}' for key, value in options.items())})"


class Crop(Augment):
    """A window of the old size at a random place of the picture, which is padded on each side."""

    name: Literal["crop"]
    """Of the augmentation."""
    padding: int = Field(default=4, ge=1)
    """Pixels added on each side, a whole number of at least 1."""
    border: Literal["zeros", "reflect"] = "zeros"
    """What is added: "zeros", or "reflect" for the picture mirrored at its edge."""


class Flip(Augment):
    """Left and right swapped; the same for all views of a sample in a batch."""

    name: Literal["flip"]
    """Of the augmentation."""
    probability: Share = 0.5
    """Part of the pictures, from 0 to 1."""


class ResizedCrop(Augment):
    """A window of random size, shape and place, brought to the old size."""

    name: Literal["resized-crop"]
    """Of the augmentation."""
    scale: Shares = [0.08, 1.0]
    """Area of the window as part of the picture: two numbers above 0 up to 1, the smaller first."""
    ratio: Pair = [3 / 4, 4 / 3]
    """Width of the window by its height: two numbers above 0, the smaller first."""


class Colour(Augment):
    """Brightness, contrast, saturation and hue changed, in a random order; grey ones have the first two."""

    unit_range: ClassVar[bool] = True
    name: Literal["colour"]
    """Of the augmentation."""
    brightness: float = Field(default=0.4, ge=0)
    """Factors are drawn from 1 - brightness (0 at least) to 1 + brightness; a number of at least 0."""
    contrast: float = Field(default=0.4, ge=0)
    """The same of the distance from the mean brightness; a number of at least 0."""
    saturation: float = Field(default=0.4, ge=0)
    """The same of the distance from grey; a number of at least 0."""
    hue: float = Field(default=0.1, ge=0, le=0.5)
    """Hues are turned by up to this part of the colour circle either way; a number from 0 to 0.5."""
    probability: Share = 1.0
    """Part of the pictures, from 0 to 1."""


class Erase(Augment):
    """A box of random size, shape and place is overwritten."""

    name: Literal["erase"]
    """Of the augmentation."""
    probability: Share = 0.25
    """Part of the pictures, from 0 to 1."""
    scale: Shares = [0.02, 1 / 3]
    """Area of the box as part of the picture: two numbers above 0 up to 1, the smaller first."""
    ratio: Pair = [0.3, 3.3]
    """Height of the box by its width: two numbers above 0, the smaller first."""
    fill: Literal["noise", "black"] = "noise"
    """What is written: "noise" (each value random) or "black"."""


class Rotate(Augment):
    """A quarter turn for each place of a sample's views in a batch: none where there is one view."""

    by_place: ClassVar[bool] = True
    name: Literal["rotate"]
    """Of the augmentation."""


class SimCLR(Augment):
    """Views of contrastive learning: at the first place a resized crop and a flip, at others strong changes.

    There it is a resized crop, a flip, other colours, grey and blur, each drawn by itself.
    """

    unit_range: ClassVar[bool] = True
    name: Literal["simclr"]
    """Of the augmentation."""
    scale: Shares = [0.2, 1.0]
    """Area of the window at places after the first as part of the picture: two numbers above 0 up to 1, the
    smaller first."""
    colour: Share = 0.8
    """Part of the pictures whose colours change, from 0 to 1."""
    grey: Share = 0.2
    """Part of the pictures that lose their colours, from 0 to 1."""
    blur: Share = 0.5
    """Part of the pictures that are blurred by 0.1 to 2 pixels, from 0 to 1."""


class RandAugment(Augment):
    """Some operations of a fixed set, drawn for each picture; by torchvision, on bytes."""

    unit_range: ClassVar[bool] = True
    needs: ClassVar[tuple[str, str] | None] = ("torchvision", "vision")
    name: Literal["randaugment"]
    """Of the augmentation."""
    operations: int = Field(default=2, ge=1)
    """Operations a picture, a whole number of at least 1."""
    magnitude: int = Field(default=9, ge=0, le=30)
    """Strength of each, a whole number from 0 to 30."""


#: What a recipe gives: a name, or a table of the name and options.
Augmentation = str | Mapping[str, Any] | Augment

#: By name.
KINDS: Mapping[str, type[Augment]] = {
    "crop": Crop,
    "flip": Flip,
    "resized-crop": ResizedCrop,
    "colour": Colour,
    "erase": Erase,
    "rotate": Rotate,
    "simclr": SimCLR,
    "randaugment": RandAugment,
}


def augment_of(entry: Augmentation) -> Augment:
    """An augmentation from its name, or from a table of its name and options.

    Raises:
        RequestError: there is no such augmentation or option, or a value is out of its range.
    """
    if isinstance(entry, Augment):
        return entry
    given = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise RequestError(
            f"data.augment: {entry!r} names no augmentation",
            fix='"crop", or { name = "crop", padding = 4 }',
        )
    kind = _kind(given["name"])
    _check_names(kind, given)
    try:
        # A pair may be a tuple in Python.
        return kind.model_validate({key: list(v) if isinstance(v, tuple) else v for key, v in given.items()})
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        field = kind.model_fields[name]
        needed = (field.description or "").rstrip(".")
        raise RequestError(
            f"data.augment: {given['name']} has {name} = {given[name]!r}; "
            f"needed: {needed[:1].lower()}{needed[1:]}",
            fix=f"{name} = {field.default}",
        ) from None


def _kind(name: str) -> type[Augment]:
    if name in KINDS:
        return KINDS[name]
    near = nearest(name, KINDS)
    raise RequestError(
        f"data.augment: there is no augmentation {name!r}",
        near=near[1:],
        fix=near[0] if near else f"one of {', '.join(list(KINDS)[:5])} ...",
    )


def _check_names(kind: type[Augment], given: Mapping[str, Any]) -> None:
    options = [key for key in kind.model_fields if key != "name"]
    for key in given:
        if key != "name" and key not in options:
            near = nearest(str(key), options)
            known = f"its options are {', '.join(options)}" if options else "it has no options"
            raise RequestError(
                f"data.augment: {given['name']} has no option {key!r}; {known}",
                near=near[1:],
                fix=near[0] if near else f"leave {key} out",
            )


def _checked(entry: Any) -> Any:
    """A name as it is, a table as its type, so that a wrong one is refused in the words of `augment_of`."""
    augment = augment_of(entry)
    return entry if isinstance(entry, str) else augment


Name = Literal["crop", "flip", "resized-crop", "colour", "erase", "rotate", "simclr", "randaugment"]
#: The type of an entry in a recipe.
AugmentEntry = Annotated[
    Name | Crop | Flip | ResizedCrop | Colour | Erase | Rotate | SimCLR | RandAugment,
    BeforeValidator(_checked),
]
