"""Whether a student's folder is as it was written: config.json is sealed and holds checksums of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from limbeck._seal import KEY, check_version, checksum, seal, text_of, unseal
from limbeck.errors import RequestError

CONFIG, CARD = "config.json", "README.md"
FORMAT = 1
_COPY = "copy the whole folder again"


def write_config(folder: Path, config: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Seals a folder whose other files are written; its card may be edited later on.

    Args:
        folder: of the student.
        config: what its own library and `load` read.
        about: what stands under "limbeck".
    """
    others = sorted(file for file in folder.iterdir() if file.name not in (CONFIG, CARD))
    files = {file.name: {"bytes": file.stat().st_size, "sha256": checksum(file)} for file in others}
    content = {**config, "limbeck": {"format": FORMAT, **about, "files": files}}
    (folder / CONFIG).write_text(seal(content, indent=2), encoding="utf-8", newline="\n")


def is_student(folder: Path) -> bool:
    """Whether limbeck wrote the folder, as far as its config.json tells: one of two marks is enough."""
    file = folder / CONFIG
    text = file.read_bytes() if file.is_file() else b""
    return b'"limbeck": {' in text or f'"{KEY}": "'.encode() in text


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json holds.

    Raises:
        RequestError: it is damaged, of another tool or of a newer format.
    """
    file = folder / CONFIG
    if not is_student(folder):
        raise RequestError(
            f"{folder} was not written by limbeck", fix=f'a model of Hugging Face is "hf:{folder}"'
        )
    config = unseal(text_of(file, _COPY), file, _COPY)
    check_version(file, "format", config["limbeck"]["format"], FORMAT)
    return config


def check(folder: Path) -> dict[str, Any]:
    """What config.json holds, after the checksums of the other files have been compared.

    Raises:
        RequestError: a file is missing or is not the one that was written; the message names it.
    """
    config = read_config(folder)
    for name, about in config["limbeck"]["files"].items():
        file = folder / name
        if not file.is_file():
            raise RequestError(f"there is no file {file}", fix=_COPY)
        size = file.stat().st_size
        if size != about["bytes"]:
            raise damaged(file, f"it has {size} bytes, {about['bytes']} were written")
        if checksum(file) != about["sha256"]:
            raise damaged(file, f"its checksum is not the one in {CONFIG}")
    return config


def damaged(file: Path, reason: str) -> RequestError:
    """The refusal of a file that cannot be read."""
    return RequestError(f"the file {file} is damaged: {reason}", fix="copy or download it again")
