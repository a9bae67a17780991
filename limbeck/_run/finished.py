"""The networks of a finished run, opened again: teachers, student, files for the device."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from limbeck._run import networks
from limbeck._run.folder import RunFolder
from limbeck._run.session import open_session
from limbeck.errors import RequestError
from limbeck.models.folder import load
from limbeck.models.loaded import Loaded

_FILES = ("exports/torch/model.pt2", "exports/onnx/model.onnx", "exports/onnx/model_int8.onnx")


def must_be_finished(folder: RunFolder) -> RunFolder:
    """The run itself.

    Raises:
        RequestError: it is not finished.
    """
    if not folder.finished:
        raise RequestError(f"{folder} is not finished", fix=f"limbeck distill {folder} --resume")
    return folder


def student(folder: RunFolder) -> Loaded:
    """The distilled student."""
    return load(must_be_finished(folder).path / "student", run_code=True)


def teachers(folder: RunFolder) -> dict[str, nn.Module]:
    """Every teacher by name, its outputs in the order of the data's classes.

    Those that the run trained lie in its folder; others are built as the recipe says.
    """
    recipe = folder.recipe()
    specs = recipe.all_teachers()
    found: dict[str, nn.Module] = {}
    session = None
    for number in range(len(specs)):
        name = "teacher" if len(specs) == 1 else f"teacher-{number}"
        if (folder.path / name).is_dir():
            found[name] = load(folder.path / name, run_code=True).network
        elif specs[number].weights != "train":
            session = session or open_session(recipe)
            found[name] = networks.by_name(
                session.build_teacher(number), session.splits.classes, "the teacher"
            ).eval()
    return found


def exported(folder: RunFolder) -> list[Path]:
    """The files for the device that are there."""
    return [folder.path / name for name in _FILES if (folder.path / name).is_file()]
