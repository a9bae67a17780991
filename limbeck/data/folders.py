"""Pictures in folders named by their class, with or without a split of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from limbeck.data import places
from limbeck.data.assembly import Options, assemble, part_of
from limbeck.data.dataset import Dataset, Splits
from limbeck.data.images import EXTENSIONS, LazyImageDataset, survey
from limbeck.data.labels import compose, listed, map_labels
from limbeck.errors import RequestError
from limbeck.task import Classification

#: What systems leave behind beside the user's own entries; names that start with a dot are hidden too.
_LITTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


def image_folder(place: str, options: Options) -> Splits:
    """`imagefolder:PATH`: PATH/train/CLASS/... and PATH/validation/CLASS/..., or PATH/CLASS/... alone."""
    source = f"imagefolder:{place}"
    root = places.existing(place, source, folder=True)
    notes: list[str] = []
    found = {part: _scan(folder) for part, folder in _layout(root, source, notes).items()}
    _check_training(found["train"], source)
    mapped = map_labels({part: scan.labels for part, scan in found.items()}, order="text")
    look = survey([scan.paths for scan in found.values()], options.size)
    parts: dict[str, Dataset] = {
        part: LazyImageDataset(
            scan.paths, mapped.targets[part], channels=look.channels, size=look.size, root=root
        )
        for part, scan in found.items()
    }
    notes += [*mapped.notes, *_order_note(mapped.classes), *_skipped_notes(found), *look.notes]
    reading = {"kind": "image", "channels": look.channels, "size": list(look.size)}
    task = Classification(mapped.classes)
    return assemble(source, parts, task, options, notes=notes, reading=reading)


@dataclass
class _Scan:
    """What a folder holds: pictures with the name of their class, and what was passed over."""

    folder: Path
    paths: list[Path] = field(default_factory=list)
    labels: list[str | None] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def _layout(root: Path, source: str, notes: list[str]) -> dict[str, Path]:
    """The folder of each part; all of it is the training part where no folder has that name."""
    inside = sorted(entry for entry in root.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    by_part: dict[str, Path] = {}
    for folder in inside:
        part = part_of(folder.name)
        if part in by_part:
            raise RequestError(
                f"{source}: {by_part[part].name} and {folder.name} are both {part} data",
                fix="keep one of them",
            )
        if part is not None:
            by_part[part] = folder
    if "train" not in by_part:
        return {"train": root}
    others = [folder.name for folder in inside if folder not in by_part.values()]
    if others:
        notes.append(f"folders beside {by_part['train'].name} are not used: {listed(others)}")
    return by_part


def _scan(folder: Path) -> _Scan:
    """All pictures below a folder, sorted by class and path; the class is the first folder below it."""
    scan = _Scan(folder)
    pictures: list[tuple[str, str, Path]] = []
    loose: list[Path] = []
    for entry in _entries(folder, scan):
        if not entry.is_dir():
            loose += _pictures_in([entry], scan)
            continue
        files = _pictures_in(_files(Path(entry), scan), scan)
        label = compose(entry.name)
        pictures += [(label, file.relative_to(folder).as_posix(), file) for file in files]
        scan.empty += [] if files else [label]
    scan.empty = [label for label in scan.empty if label not in {picture[0] for picture in pictures}]
    for label, _, path in sorted(pictures):
        scan.paths.append(path)
        scan.labels.append(label)
    if pictures:
        scan.others += [path.name for path in loose]
    else:  # no class folders: pictures without labels
        scan.paths, scan.labels = sorted(loose), [None] * len(loose)
    return scan


def _entries(folder: Path, scan: _Scan) -> list[os.DirEntry[str]]:
    """The entries of a folder by name, without hidden ones, which are noted."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    scan.hidden += [entry.name for entry in entries if _is_hidden(entry.name)]
    return [entry for entry in entries if not _is_hidden(entry.name)]


def _files(folder: Path, scan: _Scan, above: tuple[Path, ...] = ()) -> Iterator[os.DirEntry[str]]:
    """All files below a folder; a link back to a folder above is not followed."""
    real = folder.resolve()
    if real in above:
        return
    for entry in _entries(folder, scan):
        if entry.is_dir():
            yield from _files(Path(entry), scan, (*above, real))
        else:
            yield entry


def _pictures_in(files: Iterator[os.DirEntry[str]] | list[os.DirEntry[str]], scan: _Scan) -> list[Path]:
    """Those of some files that are pictures by their ending; the others are noted."""
    pictures = []
    for file in files:
        if file.name.lower().endswith(EXTENSIONS):
            pictures.append(Path(file))
        else:
            scan.others.append(file.name)
    return pictures


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _LITTER


def _check_training(train: _Scan, source: str) -> None:
    if not train.paths:
        raise RequestError(
            f"{source}: there is no picture in {train.folder} or below",
            fix=f"files that end in {', '.join(EXTENSIONS[:4])} ..., in a folder for each class",
        )
    if train.labels[0] is None:
        raise RequestError(
            f"{source}: the {len(train.paths)} pictures lie in {train.folder} itself, so they have no class",
            fix=f"a folder for each class: {train.folder.name}/CLASS/{train.paths[0].name}",
        )


def _order_note(classes: list[str]) -> list[str]:
    """Numbers in the order of their characters surprise; the note says which order it is."""
    if not all(name.isascii() and name.isdigit() for name in classes):
        return []
    by_number = sorted(classes, key=int)
    if by_number == classes:
        return []
    return [
        f"class folders are numbers in the order of their characters ({', '.join(classes[:4])}; torchvision) "
        f"and not by value ({', '.join(by_number[:4])}; timm); networks are matched by class name"
    ]


def _skipped_notes(found: Mapping[str, _Scan]) -> list[str]:
    """What was passed over in all parts, a sentence a kind."""
    notes = []
    hidden = [name for scan in found.values() for name in scan.hidden]
    others = [name for scan in found.values() for name in scan.others]
    if hidden:
        notes.append(f"{_counted(len(hidden), 'hidden entry', 'hidden entries')} skipped: {_some(hidden)}")
    if others:
        notes.append(f"{_counted(len(others), 'file', 'files')} not used: {_some(others)}")
    if found["train"].empty:
        notes.append(f"folders without pictures are no classes: {listed(found['train'].empty)}")
    return notes


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _some(names: list[str]) -> str:
    return listed(dict.fromkeys(names), most=3)
