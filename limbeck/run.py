"""The verbs as functions: `distill`, `write_cache`, `list_methods` ... Light to import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limbeck._recipe.shelf import method_entry
from limbeck._run.folder import RunFolder, opened
from limbeck._run.listings import Listing, list_methods, list_recipes
from limbeck._run.result import Run
from limbeck.errors import RequestError
from limbeck.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from limbeck._check.check import Check
    from limbeck._compare.comparison import Comparison
    from limbeck._run.caching_ahead import CacheRun
    from limbeck._run.exporting import Exports
    from limbeck._run.measuring import Measured
    from limbeck._run.predicting import Prediction
    from limbeck._run.reporting import Report
    from limbeck._run.screen import Screen
    from limbeck.cache import Verified

__all__ = [
    "Run",
    "check",
    "compare",
    "distill",
    "export",
    "list_layers",
    "list_methods",
    "list_recipes",
    "measure",
    "predict",
    "report",
    "verify_cache",
    "write_cache",
]


def distill(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    output: str | Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    screen: Screen | None = None,
) -> Run:
    """Runs a recipe: teacher, student alone, distilled student, test, export, report.

    Args:
        recipe: a `Recipe`, a TOML file, the name of a recipe of the package, or the folder of a run.
        overrides: lines `a.b=VALUE` as after `--set`, or values by dotted key.
        output: folder of the run; by default `runs/NAME`, with a number behind it where one is finished.
        resume: goes on with a run that stopped; nothing of it may be changed.
        dry_run: only plans; nothing is written.
        screen: where progress is shown; by default stderr, or the notebook.

    Raises:
        RequestError: the request was wrong; nothing was written.
        RunError: the run failed; what it had is kept.
        Interrupted: a signal stopped it; `resume=True` goes on.
    """
    if isinstance(recipe, str | Path) and Path(recipe).is_dir():
        folder = opened(recipe)
        return _again(folder, overrides, output, resume=resume, dry_run=dry_run, screen=screen)
    given, source = _read(recipe, overrides)
    from limbeck._run import job  # torch, once the recipe is right

    if resume:
        folder = job.unfinished(given, output)
        return _again(folder, (), None, resume=True, dry_run=dry_run, screen=screen)
    return job.start(given, source, output, dry_run=dry_run, screen=screen)


def check(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    screen: Screen | None = None,
) -> Check:
    """Finds what is wrong with a recipe by one dry step on real samples; trains and writes nothing.

    Args:
        recipe: as in `distill`.
        overrides: as in `distill`.
        screen: where progress is shown.

    Raises:
        RequestError: the recipe cannot be read, or its data are not there; all else is a finding.
    """
    given, source = _read(recipe, overrides)
    from limbeck._check.job import check as checked

    return checked(given, source, screen)


def compare(
    recipes: Recipe | str | Path | Sequence[Recipe | str | Path],
    *,
    seeds: int | Sequence[int] = 3,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    output: str | Path | None = None,
    jobs: int = 1,
    dry_run: bool = False,
    screen: Screen | None = None,
) -> Comparison:
    """Runs recipes and the plain student under one budget with several seeds, and ranks them.

    Each run has a folder of its own and goes on where it stopped; what is finished is not run again. A run
    that fails does not stop the others. A teacher that is yet to be trained is trained once.

    Args:
        recipes: one or several, each as in `distill`; they share data, student, epochs and batch size.
        seeds: how many, from 0, or which.
        overrides: as in `distill`, for every recipe.
        output: folder of the comparison; by default `runs/compare-NAMES`.
        jobs: how many runs at once; they share the threads.
        dry_run: only plans; nothing is written.
        screen: where progress is shown.

    Raises:
        RequestError: the request was wrong; nothing was written.
        Interrupted: a signal stopped it; the same call goes on.
    """
    several = [recipes] if isinstance(recipes, Recipe | str | Path) else list(recipes)
    chosen = _seeds(seeds)
    if not several:
        raise RequestError(
            "nothing to compare: no recipe is given", fix="limbeck recipes lists those there are"
        )
    if jobs < 1:
        raise RequestError(f"--jobs {jobs}: at least one run at once", fix="--jobs 1")
    for recipe in several:
        if isinstance(recipe, str | Path) and Path(recipe, "recipe.toml").is_file():
            raise RequestError(
                f"{recipe} is a run; compare takes recipes", fix=f"{Path(recipe).as_posix()}/recipe.toml"
            )
    read = [_read(recipe, overrides) for recipe in several]
    from limbeck._compare import job

    return job.compare(read, seeds=chosen, output=output, jobs=jobs, dry_run=dry_run, screen=screen)


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    """The seeds that are meant, each once."""
    found = list(range(seeds)) if isinstance(seeds, int) else list(dict.fromkeys(seeds))
    if not found or not all(0 <= seed < 2**32 for seed in found):
        raise RequestError(
            f"--seeds {seeds}: needed is at least one seed, from 0 to 2**32 - 1",
            fix="--seeds 5, or --seeds 3,7",
        )
    return found


def _read(recipe: Recipe | str | Path, overrides: Sequence[str] | Mapping[str, Any]) -> tuple[Recipe, str]:
    """The recipe with what is to be changed, and what it is called."""
    source = recipe.name if isinstance(recipe, Recipe) else str(recipe)
    if isinstance(recipe, Recipe):
        given = Recipe.parse(recipe.source_text(), source, overrides) if overrides else recipe
    else:
        given = Recipe.load(recipe, overrides)
    _check_slug(given)
    return given, source


def _check_slug(recipe: Recipe) -> None:
    """Refuses a method that is not in the index, before torch is imported."""
    name = recipe.method.name
    if ":" not in name:
        try:
            method_entry(name)
        except RequestError as error:
            where = recipe.where("method", "name", value=True)
            raise RequestError(error.message, fix=error.fix, near=error.near, where=where) from error


def _again(
    folder: RunFolder,
    overrides: Sequence[str] | Mapping[str, Any],
    output: str | Path | None,
    *,
    resume: bool,
    dry_run: bool,
    screen: Screen | None,
) -> Run:
    """Goes on with a run, or shows one that is finished."""
    if overrides or output is not None:
        flag = "--set" if overrides else "--output"
        anew = f"limbeck distill {folder}/recipe.toml"
        longer = f"{anew} --set student.weights={folder}/student --set train.epochs=20"
        other = f"limbeck distill {folder} --resume, or a new run: {anew} --output {folder}-new"
        raise RequestError(
            f"{flag} with the folder of a run: a run goes on as it was begun",
            fix=f"{longer} --output {folder}-longer" if folder.finished else other,
        )
    if folder.finished:
        if screen is not None:
            screen.say(f"{folder} is finished")
        return Run.open(folder.path)
    if not resume:
        raise RequestError(f"{folder} is not finished", fix=f"limbeck distill {folder} --resume")
    from limbeck._run import job

    return job.go_on(folder, dry_run=dry_run, screen=screen)


def list_layers(
    model: str | nn.Module,
    *,
    size: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    example: Any = None,
) -> Listing:
    """The layers of a model: paths, shapes, calls, parameters, share of compute; what to name in `taps`.

    Args:
        model: a network, a model as in a recipe, or a `student/` folder.
        size: side in pixels of the picture it is shown.
        channels: 1 grey, 3 colour.
        classes: number of its outputs.
        example: inputs that it is shown instead of made-up ones, as it takes them: a tensor [N, ...], or a
            mapping of its keyword arguments.

    Raises:
        RequestError: the model does not take what it is shown.
    """
    from limbeck._run.layering import layers_of

    return layers_of(model, size, channels, classes, example)


def write_cache(
    recipe: Recipe | str | Path,
    *,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    dry_run: bool = False,
    screen: Screen | None = None,
) -> CacheRun:
    """Writes the teachers' answers of a recipe ahead of its runs; what is stored already is left.

    Args:
        recipe: as in `distill`; the weights of its teachers must be given.
        overrides: as in `distill`.
        dry_run: only says how many answers there are, and what they take.
        screen: where progress is shown.

    Raises:
        RequestError: the request was wrong, or the answers cannot be stored; nothing was written.
        RunError: the disk is full; what is written is kept.
        Interrupted: a signal stopped it; the same call goes on.
    """
    given, source = _read(recipe, overrides)
    from limbeck._run.caching_ahead import ahead

    return ahead(given, source, dry_run=dry_run, screen=screen)


def report(
    runs: str | Path | Run | Sequence[str | Path | Run] = (), *, output: str | Path | None = None
) -> Report:
    """Writes one self-contained HTML page about a run, or about several side by side.

    Args:
        runs: finished runs or their folders; the newest run unless given.
        output: file of the page; by default `report.html` in the folder of the run, of several beside them.

    Raises:
        RequestError: a folder holds no finished run, scores of different kinds, or a file in the way.
    """
    from limbeck._run import reporting

    given = [runs] if isinstance(runs, str | Path | Run) else runs
    return reporting.report([each.folder if isinstance(each, Run) else each for each in given], output)


def export(
    run: str | Path | Run | None = None,
    *,
    to: str | Sequence[str] | None = None,
    int8: bool | None = None,
    max_drop: float | str | None = None,
    preprocessing: str | None = None,
) -> Exports:
    """Writes a student's files for the device; each is run and compared before it counts.

    Args:
        run: finished, or its folder; the newest unless given.
        to: formats, "torch" and "onnx"; those of its recipe unless given, as all that follows.
        int8: also an ONNX file in int8, calibrated on training samples.
        max_drop: points of validation score that int8 may lose; a file that loses more is not kept.
        preprocessing: "graph": files take pixels 0 to 1; "none": it is left to the caller.

    Raises:
        RequestError: there is no such run, or the request is wrong.
    """
    from limbeck._run import exporting

    changes: dict[str, Any] = {"int8": int8, "preprocessing": preprocessing}
    if to is not None:
        changes["to"] = exporting.as_formats(to if isinstance(to, str) else ",".join(to))
    if max_drop is not None:
        changes["max_drop"] = exporting.as_points(max_drop)
    folder = run.folder if isinstance(run, Run) else run
    return exporting.export_run(folder, {key: value for key, value in changes.items() if value is not None})


def measure(
    what: str | Path | Run | nn.Module | Sequence[str | Path | Run | nn.Module],
    *,
    size: int | None = None,
    channels: int | None = None,
    output: str | Path | None = None,
    other_machine: bool = False,
) -> Measured:
    """Measures latency, throughput, memory, size, parameters, operations and energy on this machine.

    Args:
        what: a model as in a recipe, a network, a run (its teachers, its student, its files), a student's
            folder, a file for the device, or figures that were stored; several are measured in turn.
        size: side in pixels of the picture that a model is shown.
        channels: 1 grey, 3 colour.
        output: file to store the figures in, as JSON.
        other_machine: whether stored figures may be those of another machine.

    Raises:
        RequestError: there is no such thing, or figures of another machine.
    """
    from limbeck._run import measuring

    given: list[Any] = list(what) if isinstance(what, list | tuple) else [what]
    named = [each.folder if isinstance(each, Run) else each for each in given]
    return measuring.measure(named, size, channels, output, other_machine=other_machine)


def predict(what: str | Path | Run | None, inputs: Any) -> Prediction:
    """What teacher and student, or a file for the device, say of your own samples.

    Args:
        what: a run, a student's folder, or a file; the newest run for None.
        inputs: one or several: pictures, CSV files of rows, sentences; or what `Loaded.predict` takes.

    Raises:
        RequestError: there is no such run or file, or an input is not what the student takes.
    """
    from limbeck._run import predicting

    several = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
    return predicting.predict(what.folder if isinstance(what, Run) else what, several)


def verify_cache(folder: str | Path, *, screen: Screen | None = None) -> Verified:
    """Reads every byte of a teacher cache; neither teacher nor data are needed.

    Args:
        folder: of the cache.
        screen: where progress is shown.

    Raises:
        RequestError: there is no cache, or its key file is damaged.
    """
    from limbeck._run.caching_ahead import verified

    return verified(folder, screen)
