"""Wrong requests to compare recipes."""

from __future__ import annotations

from pathlib import Path

from limbeck._seal import seal
from tests.bad_input.cases import RECIPE, Case, Files


def _other(old: str, new: str) -> Files:
    """A second recipe, other.toml, with a change."""
    text = RECIPE.replace('name = "wrong"', 'name = "other"')
    assert old in text
    return lambda folder: (folder / "other.toml").write_text(text.replace(old, new), "utf-8") and None


def _before(text: str) -> Files:
    """The folder of a comparison, as an earlier command left it."""

    def files(folder: Path) -> None:
        (folder / "before").mkdir()
        (folder / "before" / "comparison.json").write_text(text, "utf-8", newline="\n")
        (folder / "before" / ".lock").write_text("", "utf-8")

    return files


def _a_run(folder: Path) -> None:
    (folder / "runs" / "mine").mkdir(parents=True)
    (folder / "runs" / "mine" / "recipe.toml").write_text(RECIPE, "utf-8")


def _in_the_way(folder: Path) -> None:
    (folder / "taken").mkdir()
    (folder / "taken" / "thesis.txt").write_text("all of it", "utf-8")


_DAMAGED = "before/comparison.json is damaged"

#: Name of the case, words after the recipe, message, fix.
_FLAGS = (
    (
        "seeds-in-words",
        "--seeds three",
        "--seeds three: needed is how many, or which",
        "--seeds 5, or --seeds 3,7",
    ),
    ("no-seeds", "--seeds 0", "--seeds 0: needed is at least one seed", "--seeds 5"),
    ("seed-below-zero", "--seeds 3,-1", "needed is at least one seed, from 0", "--seeds 3,7"),
    ("no-jobs", "--jobs 0", "--jobs 0: at least one run at once", "--jobs 1"),
    ("jobs-in-words", "--jobs two", "--jobs needs a whole number", "limbeck compare --help"),
    ("wrong-key", "--set method.temprature=2", "unknown key method.temprature", "temperature"),
)
#: Name of the case, change of the second recipe, message, fix, place.
_PAIRS = (
    (
        "other-data",
        ("limit = 200", "limit = 300"),
        "wrong and other cannot be compared: data.limit is 200 and 300",
        "the same data.limit in both",
        "other.toml:4",
    ),
    (
        "other-student",
        ('[student]\nmodel = "cnn-tiny"', '[student]\nmodel = "resnet-small"'),
        'student.model is "cnn-tiny" and "resnet-small"',
        "the same student.model in both",
        "other.toml",
    ),
    (
        "other-epochs",
        ("[train]\nepochs = 1", "[train]\nepochs = 2"),
        "train.epochs is 1 and 2",
        "--set train.epochs=VALUE",
        "other.toml",
    ),
    (
        "one-name",
        ('name = "other"', 'name = "wrong"'),
        "mine.toml and other.toml have one name, wrong",
        'name = "wrong-2"',
        "other.toml:1",
    ),
    (
        "called-alone",
        ('name = "other"', 'name = "alone"'),
        "no recipe of a comparison can be called alone",
        'name = "my-alone"',
        "other.toml:1",
    ),
)
#: Name of the case, what lies in the folder, message, fix.
_FOLDERS = (
    ("damaged", "{", _DAMAGED, "restore it from a copy, or --output with another folder"),
    ("edited", seal({"schema": 1, "lines": {}}, 1).replace(": 1", ": 0"), _DAMAGED, "restore it from a copy"),
    (
        "newer",
        seal({"schema": 99}),
        "before/comparison.json has schema 99; this limbeck reads up to 1",
        "the limbeck that wrote it, or a newer one",
    ),
)

_ONE = ("compare", "mine.toml")

CASES = [
    Case("compare-nothing", "limbeck compare needs RECIPE", "limbeck compare --help", words=["compare"]),
    Case(
        "compare-no-such-recipe",
        "there is no recipe quikstart",
        "quickstart",
        words=(*_ONE, "quikstart"),
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
        words=(*_ONE, "--output", "taken"),
        files=_in_the_way,
    ),
    *(Case(f"compare-{name}", said, fix, words=(*_ONE, *flags.split())) for name, flags, said, fix in _FLAGS),
    *(
        Case(f"compare-{name}", said, fix, where, words=(*_ONE, "other.toml"), files=_other(*change))
        for name, change, said, fix, where in _PAIRS
    ),
    *(
        Case(f"compare-{name}", said, fix, words=(*_ONE, "--output", "before"), files=_before(text))
        for name, text, said, fix in _FOLDERS
    ),
]
