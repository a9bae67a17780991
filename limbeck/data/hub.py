"""Hugging Face data sets: a folder on disk, a name on the Hub, or an object."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor

from limbeck.data.assembly import Options, part_of
from limbeck.data.dataset import ArrayDataset, Dataset, Splits
from limbeck.data.images import Encoded, LazyImageDataset, survey
from limbeck.data.labels import listed
from limbeck.data.rows import numbers
from limbeck.data.tables import TARGETS, Columns, Table, image_column, padded_tokens, table_source
from limbeck.errors import RequestError, require

#: Files of a folder that `save_to_disk` wrote.
_SAVED = ("dataset_dict.json", "state.json")


def hub_source(place: str, options: Options) -> Splits:
    """`hf:FOLDER`, or `hf:NAME` and `hf:NAME:CONFIGURATION` on the Hub, the only source that downloads."""
    source = f"hf:{place}"
    require("datasets", "text", f'data.source = "{source}"')
    loaded = _load(place, source)
    parts, unused = _parts(loaded, source)
    splits = table_source(
        source, {part: _table(data, f"{source}, {part}") for part, data in parts.items()}, options
    )
    if unused:
        splits.notes.insert(0, f"parts of {source} that are not used: {listed(unused)}")
    return splits


def from_hub(data: Any) -> Dataset:
    """One `datasets.Dataset` as a `Dataset`; see `limbeck.data.as_dataset`.

    Values stay as they are, for another part of the same data must be read alike: class numbers, real values,
    numbers as inputs. Texts, as labels or inputs, need `load_source`, which sees all parts at once.
    """
    import datasets

    if not isinstance(data, datasets.Dataset):
        raise RequestError(
            f"a datasets.{type(data).__name__}; needed a datasets.Dataset",
            fix='choose a split: data["train"]; a stream has no sample identities',
        )
    table = _table(data, "the data set")
    named = [*(name for name in TARGETS if name in table.columns), *table.classes]
    target = named[0] if named else None
    targets = None if target is None else _as_they_are(table, target)
    image = image_column(table, target, Options())
    if image is not None:
        items = table.columns[image]
        return LazyImageDataset(items, targets, channels=survey([items]).channels, label=table.label)
    if "input_ids" in table.columns:
        return ArrayDataset(padded_tokens({"train": table})["train"], targets)
    columns = [_as_they_are(table, name).float() for name in table.columns if name != target]
    if not columns:
        raise RequestError(f"the data set has no column beside {target!r}")
    return ArrayDataset(torch.stack(columns, dim=1), targets)


def _as_they_are(table: Table, name: str) -> Tensor:
    """A column of numbers: whole ones as int64, -1 where missing; others as float32, NaN where missing."""
    column = table.columns[name]
    found = numbers(column)
    if found is None or any(isinstance(value, str) for value in column):
        raise RequestError(
            f"the column {name!r} holds other things than numbers",
            fix="limbeck.data.load_source, which reads all parts at once; or remove the column",
        )
    values = torch.tensor(found, dtype=torch.float64)
    whole = all(value is None or isinstance(value, int) for value in column)
    return values.nan_to_num(-1).long() if whole else values.float()


def _load(place: str, source: str) -> Any:
    import datasets

    path = Path(place).expanduser()
    if path.is_dir():
        saved = any((path / file).is_file() for file in _SAVED)
        with _no_bars():
            try:
                return datasets.load_from_disk(str(path)) if saved else datasets.load_dataset(str(path))
            except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
                raise RequestError(f"{source}: the folder holds no data set that can be read") from error
    if path.exists() or _is_path(place):
        raise RequestError(
            f"{source}: there is no folder {place}", where=str(path.absolute()), fix="hf:FOLDER or hf:NAME"
        )
    name, _, configuration = place.partition(":")
    with _no_bars():
        try:
            return datasets.load_dataset(name, configuration or None)
        except ConnectionError as error:
            raise _unreachable(name) from error
        except ValueError as error:  # a configuration is missing or unknown
            raise RequestError(
                f"{source} cannot be loaded: {str(error).splitlines()[0]}", fix=f"hf:{name}:CONFIGURATION"
            ) from error
        except (OSError, datasets.exceptions.DatasetsError) as error:
            raise _unreachable(name) from error


def _is_path(place: str) -> bool:
    """Whether a place reads as a path: a name on the Hub has one slash at most, not after a folder."""
    first = place.split("/", 1)[0]
    looks_so = place.startswith((".", "/", "~")) or place.count("/") > 1
    return looks_so or ("/" in place and Path(first).is_dir())


def _unreachable(name: str) -> RequestError:
    return RequestError(
        f"the data set {name!r} is neither a folder here nor can it be fetched from the Hub",
        fix="check the name and the connection; offline: a folder that datasets' save_to_disk wrote",
    )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the progress bars of the library, which our own lines would mix with."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    before = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not before:
            enable_progress_bars()


def _parts(loaded: Any, source: str) -> tuple[dict[str, Any], list[str]]:
    """The data sets by part, and the names of those that are none."""
    if not isinstance(loaded, Mapping):
        return {"train": loaded}, []
    parts: dict[str, Any] = {}
    for name, data in loaded.items():
        part = part_of(str(name))
        if part is not None and part not in parts:
            parts[part] = data
    if "train" not in parts:
        raise RequestError(f"{source} has no part named train; it has {listed(loaded)}")
    return parts, [
        str(name) for name, data in loaded.items() if all(data is not own for own in parts.values())
    ]


def _table(data: Any, label: str) -> Table:
    """A data set as a table; pictures stay encoded and are read one at a time."""
    import datasets

    plain = data.with_format(None)
    features = data.features
    images = [name for name, feature in features.items() if isinstance(feature, datasets.Image)]

    def read(name: str) -> Sequence[Any]:
        return _Pictures(plain, name) if name in images else list(plain[name])

    classes = {name: list(f.names) for name, f in features.items() if isinstance(f, datasets.ClassLabel)}
    return Table(Columns(list(features), read), label, classes=classes)


class _Pictures(Sequence[Encoded]):
    """The encoded pictures of a column, read from the memory-mapped file one at a time."""

    def __init__(self, data: Any, name: str) -> None:
        import datasets

        self._data = data.select_columns([name]).cast_column(name, datasets.Image(decode=False))
        self._name = name

    def __len__(self) -> int:
        return len(self._data)

    @overload
    def __getitem__(self, row: int) -> Encoded: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Encoded]: ...
    def __getitem__(self, row: int | slice) -> Encoded | Sequence[Encoded]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        value = self._data[row][self._name]
        return cast(Encoded, value["bytes"] if value["bytes"] is not None else value["path"])
