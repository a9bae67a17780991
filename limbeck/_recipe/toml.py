"""TOML with places: parse, say where a key stands, write back, and edit in place.

`tomllib` reads; what is here adds line and column of every key and value, an emitter, and
an edit that leaves the user's comments alone. No value is interpreted here.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from limbeck.errors import RequestError

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SPACE = re.compile(r"[ \t]*")
_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_COMMENTS = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*")
_SCALAR = re.compile(r"[^,\]}#\n]*[^,\]}#\n \t]")

# What tomllib says first, what we say, what to do about it.
_SYNTAX = (
    ("Expected '='", "a key without a value", "write: key = value"),
    ("Cannot overwrite a value", "this key is given twice", "keep one of the two"),
    ("Cannot mutate immutable", "this table is given twice", "keep one of the two"),
    ("Cannot declare", "this table is given twice", "keep one of the two headers"),
    ("Duplicate inline table key", "this key is given twice", "keep one of the two"),
    ("Invalid initial character for a key", "a key cannot start so", 'write it as: "the key" = value'),
    ("Unclosed array", "a list without its closing bracket", "close it: ]"),
    ("Unclosed inline table", "a table without its closing brace", "close it: }"),
    ("Unterminated string", "text without its closing quote", 'close it: "'),
    ('Expected "\'"', "text without its closing quote", "close it: '"),
    ("Illegal character", "text without its closing quote on the same line", 'close it: "'),
    ("Unescaped '\\'", "a backslash in text", "use single quotes: 'C:\\data'"),
    ("Invalid hex value", "a backslash in text", "use single quotes: 'C:\\data'"),
    ("Expected newline", "more than one statement on the line", "one key = value a line"),
    ("Expected ']'", "a header without its closing bracket", "close it: [name]"),
    ("Invalid statement", "neither a key, a [header] nor a # comment", "write: key = value"),
    ("Invalid value", "this is no TOML value", 'put text in quotes: "..."'),
)


@dataclass(frozen=True)
class Spot:
    """Offsets in the text: where a key starts, and from where to where its value goes.

    `header` is true for a table at its own `[header]`.
    """

    key: int
    value: tuple[int, int]
    header: bool = False


@dataclass(frozen=True)
class Document:
    """A parsed TOML text, with the spot of every key in it.

    Args:
        name: how messages call it, as a path.
        text: the text, its lines ended by a line feed alone.
        data: what `tomllib` reads from it.
        spots: by path; list items by their number, tables by their (first) header.
    """

    name: str
    text: str
    data: dict[str, Any]
    spots: Mapping[Path, Spot] = field(default_factory=dict)

    def where(self, path: Path, *, value: bool = False) -> str:
        """`file:line:column` of a key (or of its value), or of the nearest table around it."""
        while path and path not in self.spots:
            path = path[:-1]
        if not path:
            return self.name
        spot = self.spots[path]
        return f"{self.name}:{_line_column(self.text, spot.value[0] if value else spot.key)}"


def parse(text: str, name: str) -> Document:
    """Read TOML.

    Raises:
        RequestError: the text is not TOML; with line, column and what to do.
    """
    text = text.replace("\r\n", "\n")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(str(error), text, name) from error
    return Document(name, text, data, dict(_Scanner(text).run()))


def _syntax_error(said: str, text: str, name: str) -> RequestError:
    found = re.search(r"\(at (?:line (\d+), column (\d+)|end of document)\)", said)
    where = name
    if found and found[1]:
        where = f"{name}:{found[1]}:{found[2]}"
    elif found:
        where = f"{name}:{_line_column(text, len(text.rstrip()))}"
    for start, message, fix in _SYNTAX:
        if said.startswith(start):
            return RequestError(f"not valid TOML: {message}", where=where, fix=fix)
    return RequestError("not valid TOML", where=where, fix="see https://toml.io for the rules")


def _line_column(text: str, offset: int) -> str:
    line = text.count("\n", 0, offset) + 1
    return f"{line}:{offset - (text.rfind(chr(10), 0, offset) + 1) + 1}"


class _Scanner:
    """Finds the spots in a text that is known to be valid TOML."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lengths: dict[Path, int] = {}

    def run(self) -> Iterator[tuple[Path, Spot]]:
        """Every path of the document with its spot, in the order of the text."""
        table: Path = ()
        seen: dict[Path, bool] = {}
        while self._skip(_BLANK) < len(self.text):
            start = self.at
            if self.text[start] == "[":
                table = self._header()
                place = (start, self.at)
                found = [(table[: depth + 1], Spot(start, place)) for depth in range(len(table) - 1)]
                found.append((table, Spot(start, place, header=True)))
            else:
                found = list(self._pair(table))
            for path, spot in found:
                if path not in seen or (spot.header and not seen[path]):
                    seen[path] = spot.header
                    yield path, spot

    def _skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at

    def _header(self) -> Path:
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        names = self._key()
        self.at = self.text.index("]", self.at) + (2 if double else 1)
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            last = number == len(names) - 1
            if last and double:
                self.lengths[path] = self.lengths.get(path, 0) + 1
            if path in self.lengths:
                path = (*path, self.lengths[path] - 1)
        return path

    def _key(self) -> list[str]:
        names = []
        while True:
            self._skip(_SPACE)
            if self.text[self.at] in "\"'":
                start = self.at
                self._string()
                names.append(tomllib.loads(f"x = {self.text[start : self.at]}")["x"])
            else:
                start = self.at
                names.append(self.text[start : self._skip(_BARE)])
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return names
            self.at += 1

    def _pair(self, table: Path) -> Iterator[tuple[Path, Spot]]:
        start = self.at
        names = self._key()
        self.at = self.text.index("=", self.at) + 1
        self._skip(_SPACE)
        value = self.at
        path = (*table, *names)
        inner = list(self._value(path))
        for depth in range(len(table) + 1, len(path) + 1):
            yield path[:depth], Spot(start, (value, self.at))
        yield from inner

    def _value(self, path: Path) -> Iterator[tuple[Path, Spot]]:
        character = self.text[self.at]
        if character in "\"'":
            self._string()
        elif character == "[":
            yield from self._list(path)
        elif character == "{":
            yield from self._inline(path)
        else:
            self._skip(_SCALAR)

    def _string(self) -> None:
        quote = self.text[self.at]
        if self.text.startswith(quote * 3, self.at):
            body = r'(?:[^\\]|\\.)*?"""(?:""|")?' if quote == '"' else r"(?:.|\n)*?'''(?:''|')?"
            self.at += 3
        else:
            body = r'(?:[^"\\]|\\.)*"' if quote == '"' else r"[^']*'"
            self.at += 1
        self._skip(re.compile(body, re.DOTALL))

    def _list(self, path: Path) -> Iterator[tuple[Path, Spot]]:
        self.at += 1
        for number in range(len(self.text)):
            self._skip(_BLANK)
            if self.text[self.at] == "]":
                break
            start = self.at
            inner = list(self._value((*path, number)))
            yield (*path, number), Spot(start, (start, self.at))
            yield from inner
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1

    def _inline(self, path: Path) -> Iterator[tuple[Path, Spot]]:
        self.at += 1
        while True:
            self._skip(_BLANK)
            if self.text[self.at] == "}":
                break
            yield from self._pair(path)
            self._skip(_BLANK)
            if self.text[self.at] == ",":
                self.at += 1
        self.at += 1


def dump_value(value: Any) -> str:
    """One value as TOML on one line; a mapping becomes an inline table."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{dump_key(key)} = {dump_value(part)}" for key, part in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, Sequence):
        return f"[{', '.join(dump_value(part) for part in value)}]"
    return repr(value) if isinstance(value, int | float) else str(value)


def dump_key(key: str) -> str:
    """A key as TOML: bare where that is allowed, else quoted."""
    return key if _BARE.fullmatch(key) else dump_value(key)


def dumps(data: Mapping[str, Any]) -> str:
    """A mapping as TOML: plain keys first, then tables and arrays of tables; None is left out."""
    return "\n\n".join(_blocks(_without_none(data), "")).strip() + "\n"


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value if part is not None]
    return value


def _is_table_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


def _blocks(data: Mapping[str, Any], prefix: str, header: str = "") -> Iterator[str]:
    plain = {k: v for k, v in data.items() if not isinstance(v, Mapping) and not _is_table_list(v)}
    lines = [f"{dump_key(key)} = {dump_value(value)}" for key, value in plain.items()]
    if lines or (header and (len(plain) == len(data))) or header.startswith("[["):
        yield "\n".join([header, *lines] if header else lines)
    for key, value in data.items():
        name = f"{prefix}{dump_key(key)}"
        if isinstance(value, Mapping):
            yield from _blocks(value, f"{name}.", f"[{name}]")
        elif _is_table_list(value):
            for part in value:
                yield from _blocks(part, f"{name}.", f"[[{name}]]")


def edit(document: Document, changes: Sequence[tuple[Path, Any]], mark: str) -> Document:
    """The document with some values changed or added, its other text untouched.

    Args:
        document: what to change.
        changes: path and new value, in order.
        mark: comment set behind each changed line, as `--set`.
    """
    for path, value in changes:
        expected = assign(document.data, path, value)
        text = _edited_text(document, path, value, mark)
        try:
            changed = parse(text, document.name)
        except RequestError:
            changed = document
        # A layout that the simple edit does not know (dotted or inline tables) is written anew.
        document = changed if changed.data == expected else parse(dumps(expected), document.name)
    return document


def remove(document: Document, paths: Sequence[Path]) -> Document:
    """The document without some keys: their lines are taken out, its other text is untouched."""
    for path in paths:
        expected = without(document.data, [path])
        spot = document.spots[path]
        start = document.text.rfind("\n", 0, spot.key) + 1
        end = document.text.find("\n", spot.value[1]) + 1 or len(document.text)
        try:
            changed = parse(document.text[:start] + document.text[end:], document.name)
        except RequestError:
            changed = document
        document = changed if changed.data == expected else parse(dumps(expected), document.name)
    return document


def without(data: Mapping[str, Any], paths: Sequence[Path]) -> dict[str, Any]:
    """A copy of `data` without the keys at some paths."""

    def drop(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
        first, rest = path[0], path[1:]
        if not rest:
            return {key: value for key, value in table.items() if key != first}
        return {key: drop(value, rest) if key == first else value for key, value in table.items()}

    result = dict(data)
    for path in paths:
        result = drop(result, path)
    return result


def assign(data: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of `data` with the value at `path` set; missing tables on the way are made."""

    def put(old: Any, rest: Path) -> Any:
        if not rest:
            return value
        first = rest[0]
        if isinstance(first, int):
            return [put(part, rest[1:]) if n == first else part for n, part in enumerate(old)]
        table = dict(old) if isinstance(old, Mapping) else {}
        table[first] = put(table.get(first, {}), rest[1:])
        return table

    result: dict[str, Any] = put(data, path)
    return result


def _edited_text(document: Document, path: Path, value: Any, mark: str) -> str:
    text, spot = document.text, document.spots.get(path)
    if spot is not None:
        start, end = spot.value
        rest = text[end:].split("\n", 1)[0]
        comment = "" if rest.strip() else f"  # {mark}"
        return text[:start] + dump_value(value) + comment + text[end:]
    names = [dump_key(str(name)) for name in path]
    for depth in range(len(path) - 1, 0, -1):
        parent = document.spots.get(path[:depth])
        pair = f"{'.'.join(names[depth:])} = {dump_value(value)}"
        if parent is not None and text[parent.value[0]] == "{":
            start = parent.value[0] + 1
            comma = "" if text[start:].lstrip().startswith("}") else ","
            return f"{text[:start]} {pair}{comma}{text[start:]}"
        if parent is not None and parent.header:
            line = f"{pair}  # {mark}\n"
            after = text.find("\n", parent.key) + 1
            head = text[:after] if after else text + "\n"
            return head + line + (text[after:] if after else "")
    if len(path) == 1:
        start = _COMMENTS.match(text).end()  # type: ignore[union-attr]  # it also matches nothing
        return f"{text[:start]}{names[0]} = {dump_value(value)}  # {mark}\n{text[start:]}"
    header = ".".join(names[:-1])
    return f"{text.rstrip()}\n\n[{header}]\n{names[-1]} = {dump_value(value)}  # {mark}\n"
