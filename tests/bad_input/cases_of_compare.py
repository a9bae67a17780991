"""Wrong requests to compare recipes."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.cases import RECIPE, Case


def _other(folder: Path, old: str = 'name = "wrong"', new: str = 'name = "other"') -> None:
    (folder / "other.toml").write_text(RECIPE.replace('name = "wrong"', 'name = "other"').replace(old, new))


def _other_data(folder: Path) -> None:
    _other(folder, "limit = 200", "limit = 300")


def _other_student(folder: Path) -> None:
    _other(folder, '[student]\nmodel = "cnn-tiny"', '[student]\nmodel = "resnet-small"')


def _other_epochs(folder: Path) -> None:
    _other(folder, "[train]\nepochs = 1", "[train]\nepochs = 2")


def _same_name(folder: Path) -> None:
    (folder / "other.toml").write_text(RECIPE)


def _called_alone(folder: Path) -> None:
    _other(folder, 'name = "other"', 'name = "alone"')


def _a_run(folder: Path) -> None:
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "recipe.toml").write_text(RECIPE)


def _in_the_way(folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("all of it")


def _state(folder: Path, text: str) -> None:
    (folder / "before").mkdir()
    (folder / "before" / "comparison.json").write_text(text)
    (folder / "before" / ".lock").write_text("")  # as the first command left it


def _damaged(folder: Path) -> None:
    _state(folder, "{")


def _newer(folder: Path) -> None:
    _state(folder, '{"schema": 99}')


_BOTH = ("compare", "mine.toml", "other.toml")

CASES = [
    Case("compare-nothing", "limbeck compare needs RECIPE", "limbeck compare --help", words=["compare"]),
    Case(
        "compare-no-such-recipe",
        "there is no recipe quikstart",
        "quickstart",
        words=["compare", "mine.toml", "quikstart"],
    ),
    Case(
        "compare-seeds-in-words",
        "--seeds three: needed is how many, or which",
        "--seeds 5, or --seeds 3,7",
        words=["compare", "mine.toml", "--seeds", "three"],
    ),
    Case(
        "compare-no-seeds",
        "--seeds 0: needed is at least one seed",
        "--seeds 5",
        words=["compare", "mine.toml", "--seeds", "0"],
    ),
    Case(
        "compare-seed-below-zero",
        "needed is at least one seed, from 0",
        "--seeds 3,7",
        words=["compare", "mine.toml", "--seeds", "3,-1"],
    ),
    Case(
        "compare-no-jobs",
        "--jobs 0: at least one run at once",
        "--jobs 1",
        words=["compare", "mine.toml", "--jobs", "0"],
    ),
    Case(
        "compare-jobs-in-words",
        "--jobs needs a whole number",
        "limbeck compare --help",
        words=["compare", "mine.toml", "--jobs", "two"],
    ),
    Case(
        "compare-other-data",
        "wrong and other cannot be compared: data.limit is 200 and 300",
        "the same data.limit in both",
        where="other.toml:4",
        words=_BOTH,
        files=_other_data,
    ),
    Case(
        "compare-other-student",
        'student.model is "cnn-tiny" and "resnet-small"',
        "the same student.model in both",
        where="other.toml",
        words=_BOTH,
        files=_other_student,
    ),
    Case(
        "compare-other-epochs",
        "train.epochs is 1 and 2",
        "--set train.epochs=VALUE",
        where="other.toml",
        words=_BOTH,
        files=_other_epochs,
    ),
    Case(
        "compare-one-name",
        "mine.toml and other.toml have one name, wrong",
        'name = "wrong-2"',
        where="other.toml:1",
        words=_BOTH,
        files=_same_name,
    ),
    Case(
        "compare-called-alone",
        "no recipe of a comparison can be called alone",
        'name = "my-alone"',
        where="other.toml:1",
        words=_BOTH,
        files=_called_alone,
    ),
    Case(
        "compare-a-run",
        "runs/mine is a run; compare takes recipes",
        "runs/mine/recipe.toml",
        words=["compare", "runs/mine"],
        files=_a_run,
    ),
    Case(
        "compare-folder-taken",
        "taken is there and is no comparison of limbeck",
        "--output with another folder",
        words=["compare", "mine.toml", "--output", "taken"],
        files=_in_the_way,
    ),
    Case(
        "compare-damaged",
        "before/comparison.json is damaged",
        "restore it, or remove it",
        words=["compare", "mine.toml", "--output", "before"],
        files=_damaged,
    ),
    Case(
        "compare-newer",
        "before/comparison.json has schema 99; this limbeck reads 1",
        "a newer limbeck",
        words=["compare", "mine.toml", "--output", "before"],
        files=_newer,
    ),
    Case(
        "compare-wrong-key",
        "unknown key method.temprature",
        "temperature",
        words=["compare", "mine.toml", "--set", "method.temprature=2"],
    ),
]
