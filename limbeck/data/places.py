"""Files and folders that a source names: what is there, and what was looked for when it is not."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from limbeck.errors import RequestError, nearest

ENVIRONMENT = "LIMBECK_DATA"


def existing(place: str, what: str, *, folder: bool | None = None) -> Path:
    """The path of something that exists; a path that does not is refused, never taken for a download.

    Args:
        place: as the recipe writes it; relative to the working directory; `~` is the home folder.
        what: the source, for the message.
        folder: True: it must be a folder; False: a file; None: either.
    """
    path = Path(place).expanduser()
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        near = [str(path.parent / name) for name in nearest(path.name, siblings)]
        raise RequestError(
            f"{what}: there is no {'folder' if folder else 'file or folder'} {place}",
            where=str(path.absolute()),
            near=near,
            fix=near[0] if near else "paths are relative to the folder in which limbeck is started",
        )
    if folder is not None and path.is_dir() != folder:
        wanted, found = ("folder", "file") if folder else ("file", "folder")
        raise RequestError(f"{what}: {place} is a {found}, a {wanted} is needed")
    return path


def roots(root: Path | None) -> list[Path]:
    """Folders in which named sets are looked for: the one given, else that of the environment."""
    if root is not None:
        return [root]
    value = os.environ.get(ENVIRONMENT)
    return [Path(value).expanduser()] if value else []


def first_with(candidates: Iterable[Path], files: Iterable[str]) -> Path | None:
    """The first folder that holds all of some files."""
    names = list(files)
    return next((path for path in candidates if all((path / name).is_file() for name in names)), None)


def not_found(name: str, places: Iterable[str], how: str) -> RequestError:
    """The message for a named set that is not on this machine."""
    looked = "; ".join(dict.fromkeys(places))
    return RequestError(
        f"{name} is not on this machine; nothing is downloaded. Looked for: {looked}",
        fix=how,
    )
