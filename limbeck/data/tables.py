"""Tables: which column is the target, which are inputs, and what kind of inputs these are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.data.assembly import Options, assemble, part_of, training_rows
from limbeck.data.dataset import ArrayDataset, Dataset, Inputs, Splits
from limbeck.data.images import EXTENSIONS, Encoded, LazyImageDataset, survey
from limbeck.data.labels import listed, map_labels
from limbeck.data.rows import RowEncoder, mean_and_std, numbers
from limbeck.errors import RequestError, nearest
from limbeck.task import Classification, Regression, Task

#: Names that a column of targets has, in order of preference.
TARGETS = ("label", "target", "labels", "targets", "class", "score")
#: Columns of texts that are tokens already.
TOKENS = ("input_ids", "attention_mask", "token_type_ids")
#: More numbers than this as labels, with fewer rows each than that, are probably values to predict.
_MANY_CLASSES, _FEW_ROWS = 100, 50


class Columns(Mapping[str, Sequence[Any]]):
    """Columns by name, each read when it is first asked for.

    Args:
        names: in the order of the table.
        read: gives the values of a column.
    """

    def __init__(self, names: Sequence[str], read: Callable[[str], Sequence[Any]]) -> None:
        self._names = list(names)
        self._read = read
        self._kept: dict[str, Sequence[Any]] = {}

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self._names:
            raise KeyError(name)
        if name not in self._kept:
            self._kept[name] = self._read(name)
        return self._kept[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Table:
    """Rows of one part of the data.

    Attributes:
        columns: values by column name.
        label: what messages call the table.
        folder: where relative paths of pictures start.
        classes: class names of a column whose values are their numbers, where the format states them.
    """

    columns: Mapping[str, Sequence[Any]]
    label: str
    folder: Path = Path()
    classes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else 0

    def take(self, rows: Sequence[int], without: str | None = None) -> Table:
        """Some rows of the table, and all its columns or all but one."""

        def read(name: str) -> Sequence[Any]:
            values = self.columns[name]
            return [values[row] for row in rows]

        names = [name for name in self.columns if name != without]
        return Table(Columns(names, read), self.label, self.folder, self.classes)


@dataclass
class Reading:
    """Data sets read from tables, with what the targets mean and how a row becomes an input."""

    parts: dict[str, Dataset]
    task: Task
    plain: dict[str, Any]
    notes: list[str]


def table_source(
    source: str, parts: Mapping[str, Table], options: Options, notes: Sequence[str] = ()
) -> Splits:
    """The splits of one or several tables, by part; a column may say which part a row belongs to."""
    notes = list(notes)
    parts = _split_by_column(dict(parts), options, notes)
    reading = read_tables(parts, options)
    notes += reading.notes
    return assemble(source, reading.parts, reading.task, options, notes=notes, reading=reading.plain)


def read_tables(parts: Mapping[str, Table], options: Options) -> Reading:
    """Data sets from tables: pictures, tokens, texts, or rows of numbers and categories."""
    train = parts["train"]
    if len(train) == 0:
        raise RequestError(f"{train.label} has no row")
    target = _target_column(train, options)
    notes: list[str] = []
    task, targets, plain = _targets(parts, target, options, notes)
    image = image_column(train, target, options)
    if image is not None:
        return _pictures(parts, image, targets, task, options, notes)
    if "input_ids" in train.columns and not options.features and not options.text:
        inputs = padded_tokens(parts)
        plain = {**plain, "kind": "tokens", "names": list(inputs["train"])}
    elif options.text:
        inputs = _tokenized(parts, options)
        plain = {**plain, "kind": "text", "columns": list(options.text)}
        plain |= {"tokenizer": options.tokenizer, "max_length": options.max_length}
    else:
        encoder, inputs = _rows(parts, target, training_rows(targets, options), options, notes)
        plain = {**plain, "kind": "row", "columns": encoder.plain()}
    sets: dict[str, Dataset] = {part: ArrayDataset(inputs[part], targets[part]) for part in parts}
    return Reading(sets, task, plain, notes)


def _split_by_column(parts: dict[str, Table], options: Options, notes: list[str]) -> dict[str, Table]:
    """Rows by what a column says; used unasked if it is named `split` and holds names of parts alone."""
    if len(parts) > 1:
        return parts
    table = parts["train"]
    name = options.split
    if name is None:
        if "split" not in table.columns or any(part_of(str(v)) is None for v in table.columns["split"]):
            return parts
        name = "split"
    named = [part_of(str(value)) for value in _column(table, name, "data.split")]
    if None in named:
        wrong = str(table.columns[name][named.index(None)])
        raise RequestError(
            f"{table.label}: the column {name!r} holds {wrong!r}, which names no part",
            fix="train, validation or test",
        )
    rows = {
        part: [i for i, its in enumerate(named) if its == part] for part in ("train", "validation", "test")
    }
    notes.append(f"the column {name!r} says which part a row belongs to")
    return {
        part: table.take(chosen, without=name) for part, chosen in rows.items() if chosen or part == "train"
    }


def _column(table: Table, name: str, option: str) -> Sequence[Any]:
    if name not in table.columns:
        raise RequestError(
            f"{table.label} has no column {name!r} ({option}); it has {listed(table.columns, most=8)}",
            near=nearest(name, table.columns),
        )
    return table.columns[name]


def _target_column(table: Table, options: Options) -> str:
    if options.target is not None:
        _column(table, options.target, "data.target")
        return options.target
    stated = list(table.classes)
    found = next((name for name in TARGETS if name in table.columns), None)
    if found is None and len(stated) == 1:
        return stated[0]
    if found is None:
        raise RequestError(
            f"{table.label} has no column named label or target; it has {listed(table.columns, most=8)}",
            fix=f'data.target = "{(stated or list(table.columns))[-1]}", or the column that holds the labels',
        )
    return found


def _targets(
    parts: Mapping[str, Table], target: str, options: Options, notes: list[str]
) -> tuple[Task, dict[str, Tensor], dict[str, Any]]:
    """Task and targets of each part; a part without the column has no labels."""
    values = {part: table.columns.get(target, [None] * len(table)) for part, table in parts.items()}
    stated = parts["train"].classes.get(target)
    if stated is not None:
        named = {part: [_stated(value, stated) for value in column] for part, column in values.items()}
        mapped = map_labels(named, classes=stated)
    elif options.task == "values" or (options.task is None and _fractional(values["train"])):
        return _real_targets(values, target, options, notes)
    else:
        mapped = map_labels(values)
        if options.task is None and numbers(mapped.classes) is not None:
            _check_not_values(target, len(mapped.classes), len(parts["train"]))
    notes += mapped.notes
    return Classification(mapped.classes), mapped.targets, {}


def _check_not_values(target: str, classes: int, rows: int) -> None:
    if classes > _MANY_CLASSES and rows < _FEW_ROWS * classes:
        raise RequestError(
            f"the column {target!r} holds {classes} different numbers in {rows} rows: classes, or values?",
            fix='data.task = "values" if they are numbers to predict, "classes" if they are classes',
        )


def _stated(value: Any, names: Sequence[str]) -> str | None:
    """The name of a class number; -1 and None are no label."""
    return None if value is None or value < 0 else names[value]


def _fractional(values: Sequence[Any]) -> bool:
    found = numbers(values)
    return found is not None and any(not math.isnan(value) and value != round(value) for value in found)


def _real_targets(
    values: Mapping[str, Sequence[Any]], target: str, options: Options, notes: list[str]
) -> tuple[Task, dict[str, Tensor], dict[str, Any]]:
    """Real-valued targets in units of the training data's spread around its mean."""
    found = {}
    for part, column in values.items():
        its = numbers(column)
        if its is None:
            raise RequestError(f"the column {target!r} holds texts, not numbers", fix='data.task = "classes"')
        found[part] = torch.tensor(its, dtype=torch.float64)
    mean, std = mean_and_std(found["train"][training_rows(found, options)].tolist())
    notes.append(f"{target}: values are in units of {std:.4g} around {mean:.4g}, from the training rows")
    scaled = {part: ((column - mean) / std).float() for part, column in found.items()}
    return Regression(), scaled, {"target": {"name": target, "mean": mean, "std": std}}


def image_column(table: Table, target: str | None, options: Options) -> str | None:
    """The column of pictures: as asked for, or the only one that starts with a picture's bytes or path."""
    if options.image is not None:
        _column(table, options.image, "data.image")
        return options.image
    if options.features or options.text:
        return None
    found = [name for name in table.columns if name != target and _is_picture(table.columns[name])]
    if len(found) > 1:
        raise RequestError(
            f"{table.label} has several columns of pictures: {listed(found)}",
            fix=f'data.image = "{found[0]}"',
        )
    return found[0] if found else None


def _is_picture(values: Sequence[Any]) -> bool:
    first = next((value for value in values if value is not None), None)
    if isinstance(first, Mapping):
        return "bytes" in first and "path" in first
    if isinstance(first, str):
        return first.lower().endswith(EXTENSIONS)
    return isinstance(first, (bytes, Path))


def _pictures(
    parts: Mapping[str, Table],
    image: str,
    targets: Mapping[str, Tensor],
    task: Task,
    options: Options,
    notes: list[str],
) -> Reading:
    items = {part: _items(table, image, options) for part, table in parts.items()}
    look = survey(list(items.values()), options.size)
    sets: dict[str, Dataset] = {
        part: LazyImageDataset(
            items[part],
            targets[part],
            channels=look.channels,
            size=look.size,
            root=options.root or table.folder,
            label=table.label,
        )
        for part, table in parts.items()
    }
    plain = {"kind": "image", "channels": look.channels, "size": list(look.size)}
    return Reading(sets, task, plain, [*notes, f"pictures from the column {image!r}", *look.notes])


def _items(table: Table, image: str, options: Options) -> Sequence[Encoded]:
    """The pictures of a part; paths that do not exist are refused where the first ones do not."""
    values = _column(table, image, "data.image")
    if not isinstance(values, list):
        return values  # reads each picture when it is asked for
    folder = options.root or table.folder
    items = [_item(value, row, table, folder) for row, value in enumerate(values)]
    for item in items[:100]:
        if isinstance(item, Path) and not item.is_file():
            raise RequestError(
                f"{table.label}: there is no picture {item}",
                fix="data.root = the folder that the paths of the pictures are relative to",
            )
    return items


def _item(value: Any, row: int, table: Table, folder: Path) -> Encoded:
    if isinstance(value, Mapping):
        value = value["bytes"] if value.get("bytes") is not None else value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, (str, Path)) and str(value):
        return folder / Path(value).expanduser()
    raise RequestError(f"{table.label}: row {row} has no picture", fix="leave the row out")


def padded_tokens(parts: Mapping[str, Table]) -> dict[str, Inputs]:
    """Columns of tokens as tensors, padded with 0 to the longest text; the mask says what is padding."""
    train = parts["train"]
    names = [name for name in TOKENS if name in train.columns]
    longest = max(len(ids) for table in parts.values() for ids in table.columns["input_ids"])
    result: dict[str, Inputs] = {}
    for part, table in parts.items():
        made = {name: _rows_of_ids(_column(table, name, "tokens"), longest) for name in names}
        if "attention_mask" not in made:
            ones = [[1] * len(ids) for ids in table.columns["input_ids"]]
            made["attention_mask"] = _rows_of_ids(ones, longest)
        result[part] = made
    return result


def _rows_of_ids(values: Sequence[Any], length: int) -> Tensor:
    rows = torch.zeros(len(values), length, dtype=torch.int64)
    for row, ids in zip(rows, values, strict=True):
        row[: len(ids)] = torch.as_tensor(ids)
    return rows


def _tokenized(parts: Mapping[str, Table], options: Options) -> dict[str, Inputs]:
    from limbeck.data.text import tokenize

    columns = {
        part: [_column(table, name, "data.text") for name in options.text] for part, table in parts.items()
    }
    return dict(tokenize(columns, options.tokenizer, options.max_length))


def _rows(
    parts: Mapping[str, Table], target: str, rows: Tensor, options: Options, notes: list[str]
) -> tuple[RowEncoder, dict[str, Inputs]]:
    """Vectors of all rows, by an encoder that has seen `rows` alone, those that are trained on."""
    train = parts["train"]
    for name in options.features:
        _column(train, name, "data.features")
    chosen = [name for name in options.features or train.columns if name != target]
    if not chosen:
        raise RequestError(f"{train.label} has no column beside {target!r}")
    known = train.take(rows.tolist())
    encoder = RowEncoder.fit({name: known.columns[name] for name in chosen})
    inputs: dict[str, Inputs] = {part: encoder.encode(table.columns) for part, table in parts.items()}
    texts = sum(1 for column in encoder.columns if column.categories)
    notes.append(
        f"{len(chosen)} columns are inputs of width {encoder.width}: {len(chosen) - texts} of numbers, "
        f"centred and scaled by the training rows, {texts} of categories; an unknown number becomes the mean"
    )
    return encoder, inputs
