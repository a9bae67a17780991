"""CSV and Parquet files as tables."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from limbeck.data import places
from limbeck.data.assembly import Options, part_of
from limbeck.data.dataset import Splits
from limbeck.data.tables import Columns, Table, table_source
from limbeck.errors import RequestError, require

_CSV_ENDINGS = (".csv", ".tsv", ".csv.gz", ".tsv.gz", ".txt")
_PARQUET_ENDINGS = (".parquet",)
#: A part's name at the start or end of a file's name: train.csv, adult_train.csv.gz, train-0-of-2.parquet.
_SEPARATOR = re.compile(r"[-_.]")


def csv_source(place: str, options: Options) -> Splits:
    """`csv:PATH`: a file with a header line, or a folder of files named by their part; tabs in `.tsv`."""
    return _source("csv", place, _CSV_ENDINGS, _read_csv, options)


def parquet_source(place: str, options: Options) -> Splits:
    """`parquet:PATH`: a file, or a folder of files named by their part, each in one or several pieces."""
    require("pyarrow", "tabular", f'data.source = "parquet:{place}"')
    return _source("parquet", place, _PARQUET_ENDINGS, _read_parquet, options)


def _source(
    kind: str,
    place: str,
    endings: tuple[str, ...],
    read: Callable[[list[Path]], Table],
    options: Options,
) -> Splits:
    source = f"{kind}:{place}"
    path = places.existing(place, source)
    files = _by_part(path, endings, source)
    tables = {part: read(found) for part, found in files.items()}
    beside = [file[0].name for part, file in files.items() if path.is_file() and part != "train"]
    notes = [f"read as the other parts, from beside {path.name}: {', '.join(beside)}"] if beside else []
    return table_source(source, tables, options, notes)


def _by_part(path: Path, endings: tuple[str, ...], source: str) -> dict[str, list[Path]]:
    """The files of each part. Beside a file whose name ends in "train" its siblings are read too."""
    if path.is_file():
        own = _named_part(path, endings)
        if own != "train":
            return {"train": [path]}
        stem = _without_part(path, endings)
        siblings = [other for other in sorted(path.parent.iterdir()) if other.is_file()]
        near = [other for other in siblings if _without_part(other, endings) == stem]
        return _grouped(
            [other for other in near if _named_part(other, endings) != "train" or other == path], endings
        )
    found = [file for file in sorted(path.iterdir()) if _is_table(file, endings)]
    parts = _grouped(found, endings)
    if "train" in parts:
        return parts
    if len(found) == 1:
        return {"train": found}
    raise RequestError(
        f"{source}: {len(found)} files that end in {' or '.join(endings)}, none of them named train",
        fix=f"train{endings[0]}, validation{endings[0]} and test{endings[0]}, or one file",
    )


def _grouped(files: Sequence[Path], endings: tuple[str, ...]) -> dict[str, list[Path]]:
    parts: dict[str, list[Path]] = {}
    for file in files:
        part = _named_part(file, endings)
        if part is not None:
            parts.setdefault(part, []).append(file)
    return parts


def _is_table(file: Path, endings: tuple[str, ...]) -> bool:
    return file.is_file() and file.name.lower().endswith(endings) and not file.name.startswith(".")


def _words(file: Path, endings: tuple[str, ...]) -> list[str]:
    ending = max((e for e in endings if file.name.lower().endswith(e)), key=len, default="")
    return _SEPARATOR.split(file.name[: len(file.name) - len(ending)])


def _named_part(file: Path, endings: tuple[str, ...]) -> str | None:
    words = _words(file, endings)
    return part_of(words[0]) or part_of(words[-1])


def _without_part(file: Path, endings: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
    """What is left of a file's name without its part; None for files that name no part or are no tables."""
    if not _is_table(file, endings) or _named_part(file, endings) is None:
        return None
    words = _words(file, endings)
    rest = words[1:] if part_of(words[0]) else words[:-1]
    return tuple(rest), file.name[len("-".join(words)) :]


def _read_csv(paths: list[Path]) -> Table:
    if len(paths) > 1:
        raise RequestError(f"several files for one part: {', '.join(str(path) for path in paths)}")
    path = paths[0]
    rows = _rows(path)
    if not rows or not any(rows[0]):
        raise RequestError(f"{path} is empty; its first line should name the columns")
    header = [name.strip() for name in rows[0]]
    doubled = sorted({name for name in header if header.count(name) > 1})
    if doubled:
        raise RequestError(f"{path}: two columns are named {doubled[0]!r}", where=f"{path}:1")
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise RequestError(
                f"a row of {len(row)} values under a header of {len(header)} columns",
                where=f"{path}:{number}",
            )
    columns = {name: [row[i] or None for row in rows[1:]] for i, name in enumerate(header)}
    return Table(columns, str(path), path.parent)


def _rows(path: Path) -> list[list[str]]:
    """The lines of a file as lists of texts; separated by tabs without quotes, by commas or semicolons."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RequestError(f"{path} cannot be read as UTF-8 text: {error}") from error
    first = text.split("\n", 1)[0]
    tabs = path.name.removesuffix(".gz").endswith(".tsv") or ("\t" in first and "," not in first)
    if tabs:
        reader = csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        separator = ";" if first.count(";") > first.count(",") else ","
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        return [row for row in reader if row]
    except csv.Error as error:
        raise RequestError(f"{path} is not a table: {error}", where=f"{path}:{reader.line_num}") from error


def _read_parquet(paths: list[Path]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        tables = [pyarrow.parquet.read_table(path) for path in paths]
        table = pyarrow.concat_tables(tables)
    except (OSError, pyarrow.ArrowException) as error:
        raise RequestError(f"{paths[0]} cannot be read as Parquet: {str(error).splitlines()[0]}") from error

    def read(name: str) -> list[Any]:
        return list(table.column(name).to_pylist())

    return Table(Columns(table.column_names, read), str(paths[0]), paths[0].parent)
