"""What a report tells of one run, from its folder alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from limbeck._recipe.sections import MethodChoice
from limbeck._recipe.shelf import method_entry
from limbeck._report import answers as compare
from limbeck._report.facts import (
    Answer,
    Calibration,
    Classes,
    ClassRow,
    Details,
    Dispute,
    File,
    Picture,
    Split,
)
from limbeck._run import closing
from limbeck._run.evidence import Evidence
from limbeck._run.folder import RunFolder
from limbeck._show import figures
from limbeck.recipe import Recipe

_MOST_MOVED = 5
_MATRIX = 30  # classes up to which the whole matrix is shown
_LONG = 20_000  # letters of a recipe that are shown
#: Of the one file for the device that earlier run.json had, without saying so.
_OLDER = {"file": "exports/onnx/model.onnx", "dtype": "float32"}
_TRAININGS = {"alone": "student alone", "distil": "student distilled"}


def details_of(folder: RunFolder, run: Mapping[str, Any], label: str, found: Evidence | None) -> Details:
    """All sections of one run.

    Args:
        folder: of the run.
        run: what run.json holds, or will hold.
        label: method and seed.
        found: the kept answers.
    """
    recipe = Recipe(**run["recipe"])  # not of recipe.toml, which its owner may have edited since
    costs = {phase["name"]: phase["cost"] for phase in run["phases"] if phase.get("cost")}
    head, files = _files(run)
    return Details(
        label=label,
        classes=None if found is None else _classes(run["data"]["classes"], found),
        agreement=None if found is None else found.agreement(),
        calibration=() if found is None else _calibration(found),
        disputes=() if found is None else _disputes(run, found),
        file_head=head,
        files=files,
        snippet=_snippet(folder, run) if files else "",
        phases=_phases(run),
        splits=_splits(costs),
        costs=_costs(run, costs),
        command=f"limbeck distill {folder}/recipe.toml --output {folder}-again",
        changed=list(_changed(recipe, "")),
        pairs=_pairs(folder),
        recipe=_shortened(recipe.source_text()),
        facts=_facts(run),
    )


def _name_of(key: str) -> str:
    """A network of run.json in a sentence."""
    return {"alone": "student alone", "distilled": "student"}.get(key, key)


def _series_of(key: str) -> str:
    """Its colour."""
    return "teacher" if key.startswith("teacher") else {"alone": "alone"}.get(key, "s1")


def _classes(names: list[str] | None, found: Evidence) -> Classes | None:
    """The student class by class beside the same student alone, else beside its teacher."""
    before = "alone" if "alone" in found.networks else found.teacher
    if before is None or "distilled" not in found.networks or not names:
        return None
    first, second = found.networks[before].predicted, found.networks["distilled"].predicted
    number = max(len(names), int(max(first.max(), second.max(), found.target.max())) + 1)
    names = [*names, *(f"output {place}" for place in range(len(names), number))]
    samples, right = compare.right_by_class(found.target, first, number)
    _, right_after = compare.right_by_class(found.target, second, number)
    rows = [
        ClassRow(name, int(n), int(a) / int(n), int(b) / int(n))
        for name, n, a, b in zip(names, samples, right, right_after, strict=True)
        if n
    ]
    matrices = [compare.confusion(found.target, predicted, number) for predicted in (first, second)]
    return Classes(
        names=names,
        before=_name_of(before),
        after=_name_of("distilled"),
        rows=rows,
        moved=compare.most_moved(matrices[0], matrices[1], _MOST_MOVED),
        matrix=matrices[1].tolist() if number <= _MATRIX else None,
    )


def _calibration(found: Evidence) -> list[Calibration]:
    """How well each network knows how sure it may be."""
    told = []
    for key, answers in found.networks.items():
        bins = compare.reliability(answers, found.target)
        told.append(Calibration(_series_of(key), _name_of(key), compare.calibration_error(bins), bins))
    return told


def _disputes(run: Mapping[str, Any], found: Evidence) -> list[Dispute]:
    names = run["data"]["classes"] or []
    keys = [key for key in (found.teacher, "distilled", "alone") if key is not None and key in found.networks]

    def called(number: int) -> str:
        return names[number] if number < len(names) else f"output {number}"

    told = []
    for sample in found.disputed:
        place = sample["place"]
        target = int(found.target[place])
        given = []
        for key in keys:
            said, sure = found.networks[key].predicted[place], found.networks[key].confidence[place]
            given.append(Answer(_name_of(key), called(int(said)), float(sure), int(said) == target))
        picture = None
        if "picture" in sample:
            picture = Picture(sample["picture"], int(sample["width"]), int(sample["height"]))
        values = [(name, value) for name, value in sample.get("values", [])]
        told.append(Dispute(sample["sample"], called(target), given, picture, sample.get("text"), values))
    return told


def _files(run: Mapping[str, Any]) -> tuple[list[str], list[File]]:
    """The files for the device, a row each."""
    kind, split = run["score"]["kind"], run["score"]["split"]
    held = [about for key in closing.FILES if (about := run["networks"].get(key)) is not None]
    head = ["file in exports/", "numbers", "size", split, "differs by", "latency (p95)"]
    files = []
    for about in held:
        latency, difference = about.get("latency") or {}, about.get("difference")
        cells = [
            about.get("file", _OLDER["file"]).removeprefix("exports/"),
            about.get("dtype", _OLDER["dtype"]),
            figures.size(about["bytes"]),
            figures.score(kind, about["score"]) if "score" in about else "",
            "" if difference is None else f"{difference:.0e}" if difference else "0",
            f"{latency['median']:.2f} ms ({latency['p95']:.2f})" if latency else "",
        ]
        words = [about["verdict"]] if about.get("verdict") else []
        if "agreement" in about:
            words.append(f"{figures.score('classes', about['agreement'])} same answers")
        files.append(File(cells, ", ".join(words)))
    return head, files


def _snippet(folder: RunFolder, run: Mapping[str, Any]) -> str:
    """How the files are used: without limbeck where a script lies beside them, and with it."""
    script = "exports/run_onnx.py"
    lines = []
    if script in run["files"]:
        lines += [
            "# numpy, pillow and onnxruntime alone; the preprocessing is in it",
            f"python {script} picture.png",
            "",
        ]
    lines += [
        "# with limbeck",
        "import limbeck",
        f'student = limbeck.load("{folder}/student")',
        'print(student.predict("picture.png"))' if run["data"].get("pictures") else "print(student)",
    ]
    return "\n".join(lines)


def _phases(run: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    told = []
    for phase in run["phases"]:
        if phase["seconds"]:
            times = figures.clock(phase["seconds"]), figures.clock(phase["planned_seconds"])
            told.append((_phase_name(phase["name"], run), str(phase.get("epochs", "")), *times))
    total = figures.clock(run["seconds"]), figures.clock(run["planned_seconds"])
    return [*told, ("the whole run", "", *total)]


def _phase_name(name: str, run: Mapping[str, Any]) -> str:
    teachers = sum(phase["name"].startswith("teacher") for phase in run["phases"])
    if name == "teacher 0" and teachers == 1:
        return "teacher"
    return _TRAININGS.get(name, name)


def _splits(costs: Mapping[str, Any]) -> list[Split]:
    return [
        Split(shown, costs[name]["seconds"])
        for name, shown in _TRAININGS.items()
        if name in costs and sum(costs[name]["seconds"].values()) > 0
    ]


def _costs(run: Mapping[str, Any], costs: Mapping[str, Any]) -> list[tuple[str, str]]:
    told = []
    distil = costs.get("distil", {})
    if distil.get("peak_memory_bytes"):
        told.append(("memory, at most", figures.size(distil["peak_memory_bytes"])))
    if distil.get("extra_parameters") is not None:
        told.append(("extra parameters", f"{distil['extra_parameters']:,}"))
    cache = run.get("cache", {})
    if cache.get("on"):
        views = f" in {cache['views']} views" if cache["views"] > 1 else ""
        stored = f"{cache['answers']:,} stored{views}, {figures.size(cache['bytes'])}"
        told.append(("teacher's answers", stored))
    elif cache.get("why"):
        told.append(("teacher's answers", f"computed live: {cache['why']}"))
    return [*told, ("energy", "not measured here; limbeck measure tells it where the machine can")]


def _changed(table: BaseModel, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Keys that were written and differ from their default: key, value, default."""
    for name, field in type(table).model_fields.items():
        value = getattr(table, name)
        if name not in table.model_fields_set:
            continue
        if isinstance(value, BaseModel):
            yield from _changed(value, f"{prefix}{name}.")
        elif field.is_required():
            yield f"{prefix}{name}", _told(value), ""
        elif value != (default := field.get_default(call_default_factory=True)):
            yield f"{prefix}{name}", _told(value), _told(default)
    if isinstance(table, MethodChoice):
        known = method_entry(table.name)["defaults"] if ":" not in table.name else {}
        for name, value in table.hyperparameters.items():
            if name not in known or known[name] != value:
                yield f"{prefix}{name}", _told(value), _told(known.get(name))


def _told(value: Any) -> str:
    """A value as in TOML, or that there is none."""
    if value is None:
        return "none"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        value = [each.model_dump(exclude_unset=True) for each in value]
    return json.dumps(value, ensure_ascii=False, default=str)


def _pairs(folder: RunFolder) -> list[str]:
    taps = folder.recipe().method.taps
    if taps is None or not (taps.teacher or taps.student):
        return []
    if len(taps.teacher) == len(taps.student):
        return [f"{a} > {b}" for a, b in zip(taps.teacher, taps.student, strict=True)]
    return [f"{' '.join(taps.teacher)} > {' '.join(taps.student)}"]


def _shortened(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[:_LONG]}\n... (the whole of it is in recipe.toml)"


def _facts(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Data, hashes, versions and machine."""
    data, machine = run["data"], run["machine"]
    sizes = ", ".join(f"{number:,} {name}" for name, number in data["samples"].items())
    told = [("data", f"{data['source']}: {sizes}"), ("data, SHA-256", data["fingerprint"])]
    told += [("", note) for note in data.get("notes", [])]
    told += [(f"weights {name}, SHA-256", digest) for name, digest in run["inputs"].items()]
    if run["score"]["split"] == "test":
        told.append(("test split", "read once, after the last training; it chose nothing"))
    told += [
        ("recipe, SHA-256", run["recipe_fingerprint"]),
        ("seed", str(run["recipe"].get("seed", 0))),
        ("processor", f"{machine['processor']}, {machine['cores']} cores, {machine['system']}"),
        ("used", machine["used"]),
        ("chosen by rule", run["plan"]["chosen"]),
        *(("graphics", name) for name in machine["gpus"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in machine["versions"].items())),
    ]
    if machine.get("git"):
        changed = ", with changes" if machine["git"]["changed"] else ""
        told.append(("commit", f"{machine['git']['commit']}{changed}"))
    told += [("finished", run["finished"]), ("once more", run["plan"]["same"])]
    return [(name, value) for name, value in told if value]
