"""Texts that notice a changed byte: the last thing in each is a checksum of all that stands before it.

A seal finds damage and edits, not malice: who wants to can write a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck.errors import RequestError

#: Key of the seal in an object of JSON, its last; and what begins the last line of other texts.
KEY = "seal"
_JSON, _LINE = f'"{KEY}": "', f"# {KEY} "
_DIGITS = 16


def seal(content: Mapping[str, Any], indent: int | None = None) -> str:
    """An object as JSON that `unseal` reads, with the end of its last line.

    Args:
        content: the object, without a key "seal".
        indent: of its lines; None writes one line.
    """
    head, mark, tail = (json.dumps({**content, KEY: ""}, indent=indent) + "\n").rpartition(_JSON)
    return f"{head}{mark}{_sum(head + tail)}{tail}"


def unseal(text: str, name: Path | str, fix: str) -> dict[str, Any]:
    """The object that `seal` wrote, without the seal.

    Args:
        text: what the file holds, character by character.
        name: of the file, for the message.
        fix: what to do where it is damaged.

    Raises:
        RequestError: not a character of it may differ.
    """
    head, _, tail = text.rpartition(_JSON)
    if tail[:_DIGITS] != _sum(head + tail[_DIGITS:]):
        raise damaged(name, fix)
    content: dict[str, Any] = json.loads(text)
    del content[KEY]
    return content


def seal_lines(text: str) -> str:
    """Lines with a comment behind them that `unseal_lines` reads."""
    return f"{text}{_LINE}{_sum(text)}\n"


def unseal_lines(text: str, name: Path | str, fix: str) -> str:
    """The lines that `seal_lines` was given.

    Raises:
        RequestError: not a character of them may differ.
    """
    head, _, tail = text.rpartition(_LINE)
    if tail != f"{_sum(head)}\n":
        raise damaged(name, fix)
    return head


def text_of(path: Path, fix: str) -> str:
    """A file's characters as they are: no line end is translated.

    Raises:
        RequestError: it is no UTF-8.
        OSError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(path, fix) from error


def check_version(name: Path | str, kind: str, given: int, known: int) -> None:
    """Refuses what a newer limbeck wrote.

    Args:
        name: of the file or folder.
        kind: what its number is called, "schema" or "format".
        given: the number that it has.
        known: the newest that is read here.

    Raises:
        RequestError: the number is above the known one.
    """
    if given > known:
        raise RequestError(
            f"{name} has {kind} {given}; this limbeck reads up to {known}",
            fix="the limbeck that wrote it, or a newer one",
        )


def checksum(file: Path) -> str:
    """SHA-256 of a file's bytes, which need not fit into memory."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def damaged(name: Path | str, fix: str) -> RequestError:
    """The refusal of a text that is not as it was written."""
    return RequestError(f"{name} is damaged or was edited: its seal does not fit", fix=fix)


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:_DIGITS]
