"""Data by name: one text of a recipe to training, validation and test samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, cast

from limbeck.data.assembly import DEFAULT_SHARE, Options
from limbeck.data.augment import Augmentation
from limbeck.data.dataset import Splits
from limbeck.errors import RequestError, nearest

#: Sets by name -> the function that reads them: (name, options) -> Splits.
_NAMED: Mapping[str, str] = {
    "fashion-small": "limbeck.data.embedded:load",
    "fashion-mnist": "limbeck.data.named:fashion_mnist",
    "cifar10": "limbeck.data.named:cifar",
    "cifar100": "limbeck.data.named:cifar",
}

#: Kinds of places -> the function that reads them: (what follows the colon, options) -> Splits.
_KINDS: Mapping[str, str] = {
    "imagefolder": "limbeck.data.folders:image_folder",
    "csv": "limbeck.data.files:csv_source",
    "parquet": "limbeck.data.files:parquet_source",
    "hf": "limbeck.data.hub:hub_source",
}


def load_source(
    source: str,
    *,
    root: Path | str | None = None,
    seed: int = 0,
    target: str | None = None,
    image: str | None = None,
    text: Sequence[str] = (),
    features: Sequence[str] = (),
    tokenizer: str | None = None,
    max_length: int = 128,
    split: str | None = None,
    task: Literal["classes", "values"] | None = None,
    validation: float = DEFAULT_SHARE,
    test: float | None = None,
    size: int | None = None,
    limit: int | None = None,
    augment: Sequence[Augmentation] = (),
    mix: Literal["none", "mixup", "cutmix"] = "none",
    mix_alpha: float | None = None,
    skip_unreadable: bool = False,
) -> Splits:
    """Reads the data of a recipe.

    Args:
        source: a set by name ("fashion-small", "fashion-mnist", "cifar10", "cifar100"), or
            "imagefolder:PATH", "csv:PATH", "parquet:PATH", "hf:NAME[:CONFIGURATION]" or "hf:FOLDER", or
            "module:function", code of the user's that is run and returns `Splits`, (train, validation[,
            test]) or a mapping of these.
        root: folder in which named sets and relative image paths of tables are looked for; else LIMBECK_DATA.
        seed: of drawn splits, limits and views.
        target: column of the labels; by default `label` or `target`.
        image: column of pictures, as paths or bytes; found by itself where there is one.
        text: columns of text; they need `tokenizer`.
        features: columns that are inputs; by default all but the target.
        tokenizer: Hugging Face tokenizer for text, by name or folder.
        max_length: tokens a text is cut to.
        split: column that says which part a row belongs to.
        task: "classes" or "values" (real numbers); by default by the target column.
        validation: share of training that is drawn for validation where the source has no such part.
        test: the same for test; by default 0.1 where the source has no split at all, else none.
        size: side in pixels that pictures of an image source are brought to; by default chosen and said.
        limit: training samples, class-balanced; None or 0 = all.
        augment: augmentations of the training pictures: crop, flip, resized-crop, colour, erase, rotate,
            simclr, randaugment; each a name, or a mapping of `name` and options.
        mix: mixes the samples of each training batch: mixup or cutmix; classes only.
        mix_alpha: of the distribution Beta(alpha, alpha) of its shares; 0.2 for mixup, 1 for cutmix.
        skip_unreadable: leave pictures out that cannot be read, and say so; they would stop the run
            otherwise.

    Raises:
        RequestError: the source does not exist or does not fit the options; the message says what was
        looked for.
    """
    options = Options(
        root=None if root is None else Path(root).expanduser(),
        seed=seed,
        target=target,
        image=image,
        text=text,
        features=features,
        tokenizer=tokenizer,
        max_length=max_length,
        split=split,
        task=task,
        validation=validation,
        test=test,
        size=size,
        limit=limit or None,
        augment=augment,
        mix=mix,
        mix_alpha=mix_alpha,
        skip_unreadable=skip_unreadable,
    )
    kind, colon, place = source.partition(":")
    if source in _NAMED:
        return _reader(_NAMED[source])(source, options)
    if kind in _KINDS and colon:
        if not place:
            raise RequestError(f"data.source = {source!r} names no place", fix=f"{kind}:PATH")
        return _reader(_KINDS[kind])(place, options)
    if colon and _is_code(kind, place):
        from limbeck.data.user import user_source

        return user_source(source, options)
    raise _unknown(source)


def _reader(place: str) -> Callable[[str, Options], Splits]:
    module, _, name = place.partition(":")
    return cast(Callable[[str, Options], Splits], getattr(import_module(module), name))


def _is_code(module: str, function: str) -> bool:
    """Whether a source reads as module:function; a misspelt kind before a path does not."""
    return all(part.isidentifier() for part in module.split(".")) and function.isidentifier()


def _unknown(source: str) -> RequestError:
    path = Path(source).expanduser()
    kind, colon, place = source.partition(":")
    if path.is_dir():
        return RequestError(f"data.source = {source!r} is a folder", fix=f"imagefolder:{source}")
    if path.suffix in (".csv", ".tsv", ".parquet") or source.endswith((".csv.gz", ".tsv.gz")):
        fixed = "parquet" if path.suffix == ".parquet" else "csv"
        return RequestError(f"data.source = {source!r} needs the kind of file", fix=f"{fixed}:{source}")
    near = [f"{name}:{place}" for name in nearest(kind, _KINDS)] if colon else nearest(source, _NAMED)
    return RequestError(
        f"there is no data source {source!r}",
        near=near[1:],
        fix=near[0] if near else "fashion-small, imagefolder:PATH, csv:PATH, hf:PATH or module:function",
    )
