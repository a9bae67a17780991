"""Several methods at once, on one student and one teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, cast, final

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.method import Card, Method, Stage, Trained, Update
from limbeck.record import Losses, Record
from limbeck.taps import Taps

#: What a method needs of its teacher, from least to most.
_NEEDS = ("outputs", "weights", "live")


@final
class Combination(Method):
    """The weighted sum of several methods: student and teacher run once, every term stays apart.

        L = sum_i weight_i * L_i

    Terms are named `slug.term`, notes too; a slug that comes twice is numbered, as `kd` and `kd2`. Every
    method brings its own term for the labels: give all but one of them a label weight of 0.

    The methods belong to the combination afterwards and do not train alone any more.

    Args:
        methods: at least two, built on the same student, teacher and task, each with one stage of one update.
        weights: > 0, one a method; 1 unless given.

    Raises:
        RequestError: they do not share networks, train in several stages, or deploy different networks.
    """

    def __init__(self, methods: Sequence[Method], weights: Sequence[float] | None = None) -> None:
        _check(methods, weights)
        first = methods[0]
        card = _card(methods, _names(methods))
        self.card = replace(card, taps=False)  # the methods have placed theirs, and sized their adaptors
        assert first.student is not None and first.teacher is not None  # as _check has made sure
        super().__init__(first.student, first.teacher.model, task=first.task)
        self.card = card
        self.weights = tuple(weights or [1.0] * len(methods))
        self.names = _names(methods)
        self.tapped = {side: _union(methods, side) for side in ("student", "teacher")}
        self.shapes = {
            side: {path: shape for each in methods for path, shape in each.shapes[side].items()}
            for side in ("student", "teacher")
        }
        self.teacher = first.teacher.reading(self.tapped["teacher"], task=self.task)
        for name, method in zip(self.names, methods, strict=True):
            self._take(name, method, first.student)
        self.student_taps = Taps(first.student, self.tapped["student"], task=self.task, trainable=True)

    def _take(self, name: str, method: Method, student: nn.Module) -> None:
        """Makes a method a part: it keeps what it trains besides the student, and reads our record."""
        method.student_taps.remove()
        method.teacher = self.teacher
        method.__dict__["_loop"] = self.__dict__["_loop"]
        # Known to the part, but registered once, by the combination: else it would be saved with every part.
        del method.student
        object.__setattr__(method, "student", student)
        self.add_module(name, method)

    @property
    def parts(self) -> dict[str, Method]:
        """The methods by name."""
        return {name: cast(Method, self.get_submodule(name)) for name in self.names}

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The terms of all methods, from one forward of both networks."""
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        notes: dict[str, Tensor] = {}
        for (name, method), weight in zip(self.parts.items(), self.weights, strict=True):
            own = method.losses(
                _only(student, method.tapped["student"]), _only(teacher, method.tapped["teacher"]), batch
            )
            terms |= {f"{name}.{term}": value for term, value in own.terms.items()}
            weights |= {f"{name}.{term}": weight * value for term, value in own.weights.items()}
            notes |= {f"{name}.{note}": value for note, value in own.notes.items()}
        return Losses(terms, weights, notes)

    def stages(self) -> list[Stage]:
        """One stage, which trains what any of the methods trains, and fits what any of them fits before."""
        own = {name: next(iter(method.stages())) for name, method in self.parts.items()}
        begins = [stage.begin for stage in own.values() if stage.begin is not None]

        def begin(data: Any) -> Any:
            for each in begins:
                data = each(data)
            return data

        one = next(iter(own.values()))
        assert self.student is not None  # as _check has made sure
        added = [part for stage in own.values() for part in _own(stage, self.student)]
        trains: dict[str, Trained] = {"student": self.student, "method": added}
        return [
            Stage(
                "train",
                [Update("student", trains)],
                data=one.data,
                begin=begin if begins else None,
                whole_batches=any(stage.whole_batches for stage in own.values()),
                scored=any(stage.scored for stage in own.values()),
                views=one.views,
            )
        ]

    def top_k_temperatures(self) -> Sequence[float] | None:
        """Those of all methods; None where one of them needs whole outputs."""
        found = [method.top_k_temperatures() for method in self.parts.values()]
        known = [each for each in found if each is not None]
        return None if len(known) < len(found) else sorted({value for each in known for value in each})

    def deployable(self) -> nn.Module:
        """What the one method that deploys more than the student deploys, else the student."""
        special = [method for method in self.parts.values() if _deploys(method)]
        return special[0].deployable() if special else super().deployable()


def _only(record: Record, paths: Sequence[str]) -> Record:
    return Record(record.output, {path: record.layers[path] for path in paths})


def _union(methods: Sequence[Method], side: str) -> list[str]:
    return list(dict.fromkeys(path for method in methods for path in method.tapped[side]))


def _own(stage: Stage, student: nn.Module) -> list[nn.Module | nn.Parameter]:
    """What a stage trains besides the student."""
    held = {id(parameter) for parameter in student.parameters()}
    found = [parameter for update in stage.updates for parameter in update.parameters()]
    return [parameter for parameter in found if id(parameter) not in held]


def _names(methods: Sequence[Method]) -> list[str]:
    slugs = [method.card.slug for method in methods]
    return [
        slug if slugs[:number].count(slug) == 0 else f"{slug}{slugs[:number].count(slug) + 1}"
        for number, slug in enumerate(slugs)
    ]


def _deploys(method: Method) -> bool:
    """Whether it deploys something else than the student as it trains."""
    return type(method).deployable is not Method.deployable


def _check(methods: Sequence[Method], weights: Sequence[float] | None) -> None:
    if len(methods) < 2:
        raise RequestError(f"{len(methods)} methods; a combination has at least 2")
    if weights is not None and (len(weights) != len(methods) or not all(weight > 0 for weight in weights)):
        raise RequestError(f"weights {list(weights)} for {len(methods)} methods; needed one above 0 for each")
    for method in methods:
        _check_part(method, methods[0])
    special = [method.card.slug for method in methods if _deploys(method)]
    if len(special) > 1:
        raise RequestError(f"{' and '.join(special)} each deploy a network of their own; one of them can")
    stages = {method.card.slug: next(iter(method.stages())) for method in methods}
    for name, kinds in (
        ("the samples", {slug: stage.data for slug, stage in stages.items()}),
        ("the number of views", {slug: stage.views for slug, stage in stages.items()}),
    ):
        if len(set(kinds.values())) > 1:
            said = ", ".join(f"{slug} {kind}" for slug, kind in kinds.items())
            raise RequestError(f"the methods differ in {name} of a batch: {said}")


def _check_part(method: Method, first: Method) -> None:
    """Refuses a method that cannot be one of several, or is not on the networks of the first."""
    slug = method.card.slug
    if method.student is None or method.teacher is None or method.card.teacher not in _NEEDS:
        raise RequestError(f"{slug} has not one student that trains and one teacher that is given")
    if type(method).losses is Method.losses:
        raise RequestError(f"{slug} is more than a sum of terms of one student's and one teacher's outputs")
    if method.student is not first.student:
        raise RequestError(
            f"{slug} has another student than {first.card.slug}", fix="the same object for all"
        )
    if first.teacher is None or method.teacher.model is not first.teacher.model:
        raise RequestError(
            f"{slug} has another teacher than {first.card.slug}", fix="the same object for all"
        )
    if type(method.task) is not type(first.task):
        raise RequestError(f"{slug} has another task than {first.card.slug}")
    stages = list(method.stages())
    if len(stages) > 1 or len(stages[0].updates) > 1:
        raise RequestError(
            f"{slug} trains in several stages or updates, so it cannot be one of several methods"
        )
    stage, update = stages[0], stages[0].updates[0]
    if stage.renew or update.optimizer or update.rate != 1 or update.every != 1:
        raise RequestError(
            f"{slug} begins anew within its stage, or has an optimizer, rate or rhythm of its own; several "
            "methods train in one update, which would lose it"
        )


def _card(methods: Sequence[Method], names: Sequence[str]) -> Card:
    """The needs of all methods in one card."""
    cards = [method.card for method in methods]
    tasks = [kind for kind in cards[0].tasks if all(kind in card.tasks for card in cards)]
    minimum = {
        f"{name}.{term}": value
        for name, card in zip(names, cards, strict=True)
        for term, value in (card.minimum or {}).items()
    }
    special = [card for card, method in zip(cards, methods, strict=True) if _deploys(method)]
    return Card(
        slug="combination",
        title=" + ".join(names),
        paper="; ".join(dict.fromkeys(card.paper for card in cards)),
        equations=("L = sum_i weight_i * L_i", *(line for card in cards for line in card.equations)),
        tasks=tuple(tasks),
        needs=tuple(dict.fromkeys(need for card in cards for need in card.needs)),
        teacher=cast(
            Literal["outputs", "weights", "live"], max((card.teacher for card in cards), key=_NEEDS.index)
        ),
        deployed=special[0].deployed if special else "the student alone",
        hyperparameters={"weights": "> 0, one a method; 1"},
        couples_batch=any(card.couples_batch for card in cards),
        taps=any(card.taps for card in cards),
        minimum=minimum or None,
    )
