"""Pages for the tests of the report: plain facts, as many and as hostile as a test wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from limbeck._report import answers as compare
from limbeck._report.answers import Answers
from limbeck._report.facts import (
    Answer,
    Calibration,
    Classes,
    ClassRow,
    Comparison,
    Curve,
    Details,
    Dispute,
    File,
    Found,
    Model,
    Number,
    Page,
    Picture,
    Split,
)
from limbeck._show.intervals import Interval

#: Names that data may bring along.
HOSTILE = (
    "<script>alert(1)</script>",
    '"\' onload="alert(2)',
    "</title></svg><img src=x onerror=alert(3)>",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "\N{CAT FACE} and a very long name " + "w" * 400,
    "{{ 7 * 7 }} {% raw %}",
    "-->]]>&amp;&#60;b>",
    "javascript:alert(4)",
)
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mNgAAAAAgABSK+kcQAA"
    "AABJRU5ErkJggg=="
)


def names(number: int) -> list[str]:
    """Names of classes."""
    return [f"class {place}" for place in range(number)]


def details(classes: Sequence[str], *, number: int = 0) -> Details:
    """All sections of one run with drawn answers."""
    draw = np.random.default_rng(number)
    count, samples = len(classes), max(400, 3 * len(classes))
    target = draw.integers(0, count, samples)
    said = {
        name: Answers(
            np.where(draw.random(samples) < share, target, draw.integers(0, count, samples)),
            0.3 + 0.7 * draw.random(samples),
        )
        for name, share in (("teacher", 0.9), ("student alone", 0.6), ("student", 0.8))
    }
    series = dict(zip(said, ("teacher", "alone", "s1"), strict=True))
    before, after = said["student alone"].predicted, said["student"].predicted
    seen, right = compare.right_by_class(target, before, count)
    _, right_after = compare.right_by_class(target, after, count)
    matrices = [compare.confusion(target, predicted, count) for predicted in (before, after)]
    bins = {name: compare.reliability(answers, target) for name, answers in said.items()}
    places = compare.disputed(said["teacher"], said["student"], 12)
    return Details(
        label=f"kd, seed {number}: {classes[0]}",
        classes=Classes(
            names=classes,
            before="student alone",
            after="student",
            rows=[
                ClassRow(name, int(n), int(a) / int(n), int(b) / int(n))
                for name, n, a, b in zip(classes, seen, right, right_after, strict=True)
                if n
            ],
            moved=compare.most_moved(*matrices, 5),
            matrix=matrices[1].tolist() if count <= 30 else None,
        ),
        agreement=compare.agreement(target, said["teacher"].predicted, after),
        calibration=[
            Calibration(series[name], name, compare.calibration_error(held), held)
            for name, held in bins.items()
        ],
        disputes=[
            Dispute(
                sample=place,
                true=classes[target[place]],
                answers=[
                    Answer(
                        name,
                        classes[answers.predicted[place]],
                        float(answers.confidence[place]),
                        bool(answers.predicted[place] == target[place]),
                    )
                    for name, answers in said.items()
                ],
                picture=Picture(_PIXEL, 28, 28),
            )
            for place in places
        ],
        file_head=["file", "size"],
        files=[File(["exports/onnx/model.onnx", "0.24 MB"], "slower")],
        snippet=f"python exports/run_onnx.py {classes[0]}",
        phases=[(classes[0], "12", "0:13", "0:12")],
        splits=[
            Split("student alone", {"data": 0.001, "student": 0.004, "backward": 0.006}),
            Split(
                "student distilled", {"data": 0.001, "teacher": 0.002, "student": 0.004, "backward": 0.006}
            ),
        ],
        costs=[("memory, at most", "871 MB")],
        command=f"limbeck distill {classes[0]}",
        changed=[("method.temperature", classes[0], "none")],
        pairs=[f"{classes[0]} > layer2"],
        recipe=f"# {classes[0]}\n[data]\nsource = 1\n",
        facts=[("data", classes[0])],
    )


def page(classes: Sequence[str], *, runs: int = 1, epochs: int = 12) -> Page:
    """A page with every section."""
    name = classes[0]
    curve = [(float(epoch), 0.5 + 0.4 * (1 - 1 / epoch)) for epoch in range(1, epochs + 1)]
    terms = [(float(epoch), 2.0 / epoch) for epoch in range(1, epochs + 1)]
    seeds = [(f"seed {seed}", 0.05 + 0.01 * seed) for seed in range(runs)]
    return Page(
        title=name,
        about=f"{name} taught by {name}",
        verdict=f"The student {name} is 22 x smaller.",
        kind="classes",
        score_name="accuracy",
        split="test",
        samples=2000,
        version="0.1.0",
        numbers=[Number("99.2 %", "of the teacher's"), Number("22 x", "smaller"), Number("+7.9", name)],
        seeds="1 run, seed 0.",
        warnings=[f"One seed. {name}"],
        findings=[Found("R101", "warning", "one seed", name, name, name, "Why it matters.")],
        models=[
            Model("teacher", f"teacher {name}", [0.9], 1_209_834, 4_850_000, [0.0018]),
            Model("alone", "student alone", [0.8] * runs, 54_298, 218_000, [0.00026]),
            Model(
                "s1",
                f"student by {name}",
                [0.89, 0.88][:runs],
                54_298,
                218_000,
                [0.00025],
                0.0003,
                name,
                last=[0.88],
            ),
            Model("s1", "as ONNX", [0.89], None, 239_000, [0.00009], file=True),
        ],
        notes=[f"Latency: {name}."],
        helped=[
            Comparison("s1", f"{name} against the same student alone", seeds, Interval(0.05, 0.01), "How."),
            Comparison("s1", f"{name} against kd", seeds, None, "How."),
        ],
        validation=[
            Curve("teacher", "teacher", curve, 5.0),
            Curve("alone", "student alone", curve, 3.0),
            Curve("s1", f"student by {name}", curve, float(epochs)),
        ],
        terms=[(name, [Curve("s1", name, terms), Curve("s2", "soft", terms)])],
        runs=[details(classes, number=number) for number in range(runs)],
    )
