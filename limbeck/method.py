"""The interface of a distillation method: one paper, its adaptors, losses and stages."""

from __future__ import annotations

import copy
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.record import Losses, Record
from limbeck.taps import Taps, propose, untapped
from limbeck.task import Classification, Task
from limbeck.teacher import Teacher

Trained = nn.Module | Iterable[nn.Module | nn.Parameter]


@dataclass(frozen=True)
class Card:
    """What a reader, `limbeck methods` and the contract suite need to know of a method.

    Args:
        slug: its name in recipes; `title`: its name for people; `paper`: the citation.
        equations: the loss, in ASCII, a line an equation.
        tasks: the task kinds that it works for; `needs`: in words, as "labels" or "layers".
        teacher: what it uses of the teacher: nothing, its outputs (these can be cached), its weights, the
            live network, or a teacher that is trained along.
        deployed: what stays at inference.
        hyperparameters: meaning, range and the paper's value, by name.
        couples_batch: the loss of a sample depends on the others of its batch.
        taps: it reads named layers; `cohort`: it trains several students.
        minimum: the terms when the student equals its teacher; None where that is not defined.
        consulted: public code that was read; `inferred`: what the paper leaves open and we decided.
    """

    slug: str
    title: str
    paper: str
    equations: tuple[str, ...]
    tasks: tuple[str, ...]
    needs: tuple[str, ...]
    teacher: Literal["none", "outputs", "weights", "live", "trained"]
    deployed: str
    hyperparameters: Mapping[str, str]
    couples_batch: bool = False
    taps: bool = False
    cohort: bool = False
    minimum: Mapping[str, float] | None = None
    consulted: str = ""
    inferred: tuple[str, ...] = ()


@dataclass
class Update:
    """One optimizer's step: a name, and the groups it trains by name.

    Args:
        every: the steps of an epoch at which it is due, counted from 0; its last step always is.
        optimizer: settings that differ from the recipe's, as `{"learning_rate": 1e-3}`.
        rate: a factor on its learning rates, whoever set them.
    """

    name: str
    trains: Mapping[str, Trained]
    every: int = 1
    optimizer: Mapping[str, Any] = field(default_factory=dict)
    rate: float = 1.0

    def parameters(self) -> Iterator[nn.Parameter]:
        """The parameters of all groups, each once."""
        seen: set[int] = set()
        for group in self.trains:
            for parameter in self.group(group):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter

    def group(self, name: str) -> Iterator[nn.Parameter]:
        """The parameters of one group."""
        trained = self.trains[name]
        for part in [trained] if isinstance(trained, nn.Module) else trained:
            yield from part.parameters() if isinstance(part, nn.Module) else [part]

    def modules(self) -> Iterator[nn.Module]:
        """The modules that were named as trained, with all they hold."""
        for trained in self.trains.values():
            for part in [trained] if isinstance(trained, nn.Module) else trained:
                if isinstance(part, nn.Module):
                    yield from part.modules()


@dataclass
class Stage:
    """One phase of training, with fresh optimizers and schedules.

    Args:
        updates: what steps, in order, at every step.
        share: its part of the epochs, relative to the other stages' (of a generator: of the whole).
        epochs: its number of epochs, in place of a share.
        data: "train" (every sample) or "labelled" (those with a target).
        begin: called with the data on entry, and every `renew` epochs, never on resume; returns the data
            to train on.
        own_batches: every update draws its own next batch; `whole_batches`: smaller ones are left out.
        scored: the validation score means something here; otherwise the stage is followed by its own loss.
        views: how many views of each sample stand in a batch, one after the other; their view numbers are
            those of `limbeck.data.view_number(view, place)`, place 0, 1, ... The batch size counts samples.
    """

    name: str
    updates: Sequence[Update]
    share: float = 1
    epochs: int | None = None
    data: Literal["train", "labelled"] = "train"
    begin: Callable[[Any], Any] | None = None
    renew: int = 0
    own_batches: bool = False
    whole_batches: bool = False
    scored: bool = True
    views: int = 1


class _SetByLoop:
    """A value that the training loop sets; reading it unset is an error that names the line to write."""

    def __init__(self, example: str) -> None:
        self.example = example

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        if self.name not in instance.__dict__["_loop"]:
            raise RequestError(
                f"{type(instance).__name__} reads method.{self.name}, which the loop has not set",
                fix=f"method.{self.name} = {self.example}",
            )
        return instance.__dict__["_loop"][self.name]

    def __set__(self, instance: Any, value: Any) -> None:
        instance.__dict__["_loop"][self.name] = value


class Method(nn.Module, ABC):
    """One paper: its adaptors, losses and stages; a batch in, `Losses` out.

    `parameters()` is what trains and `state_dict()` what is saved; the teacher is in neither.

    Args:
        student: the network to train, a child module.
        teacher: a trained network, or a `Teacher`.
        task: how batches enter the networks; classification unless given.
        taps: the layers to read, `{"student": [...], "teacher": [...]}`; proposed from `example` otherwise.
        example: one batch, which sizes adaptors and checks the taps; needed by methods that read layers.
        reads: the networks whose layers a method reads, where its card says that it reads layers.
    """

    #: Of the class; a combination has one of its own.
    card: Card
    progress = _SetByLoop("step / steps  # 0 to 1")
    epoch = _SetByLoop("epoch  # counted from 1")
    epochs = _SetByLoop("epochs")
    scores = _SetByLoop("{}  # figures by network, after an evaluation")
    history = _SetByLoop("[]  # mean terms by epoch")
    optimizers = _SetByLoop('{"student": optimizer}')

    def __init__(
        self,
        student: nn.Module | None,
        teacher: nn.Module | Teacher | None = None,
        *,
        task: Task | None = None,
        taps: Mapping[str, Sequence[str]] | None = None,
        example: Any = None,
        reads: Sequence[str] = ("student", "teacher"),
    ) -> None:
        super().__init__()
        self.__dict__["_loop"] = {}
        self._resting: list[nn.Module] = []
        self.task = task or Classification()
        self._check_kind()
        if isinstance(teacher, nn.Module):
            teacher = Teacher(teacher, task=self.task)
        self.student, self.teacher = student, teacher
        self.tapped: dict[str, list[str]] = {"student": [], "teacher": []}
        self.shapes: dict[str, dict[str, torch.Size]] = {"student": {}, "teacher": {}}
        if self.card.taps:
            self._place(taps, example, reads)
        elif taps is not None:
            raise RequestError(f"{self.card.slug} reads no layers, so it takes no taps", fix="leave taps out")
        if student is not None and not self.card.taps:
            self.student_taps = Taps(student, (), task=self.task, trainable=True)

    def _check_kind(self) -> None:
        if self.task.kind not in self.card.tasks:
            raise RequestError(
                f"{self.card.slug} is for outputs of the kind {' or '.join(self.card.tasks)}; "
                f"the task {self.task.name} has {self.task.kind}"
            )

    def _place(self, taps: Mapping[str, Sequence[str]] | None, example: Any, reads: Sequence[str]) -> None:
        """Resolves the layers of both networks, runs the dry batch and notes the shapes."""
        assert self.student is not None and self.teacher is not None
        if example is None:
            raise RequestError(
                f"{self.card.slug} sizes its adaptors by one batch, and none was given",
                fix="example=next(iter(loader))",
            )
        batch = self.task.batch(example)
        if taps is None:
            both = propose(self.student, self.teacher.model, batch, self.task)
            taps = {side: both[side] for side in reads}
        if set(taps) != set(reads) or not all(len(taps[side]) for side in taps):
            whose = "each network" if len(reads) > 1 else f"the {reads[0]} and of no other network"
            raise RequestError(
                f"taps {dict(taps)}; {self.card.slug} needs at least one layer of {whose}",
                fix=f"taps={ {side: ['layer3'] for side in reads} }",
            )
        self.tapped |= {side: list(paths) for side, paths in taps.items()}
        self.student_taps = Taps(self.student, self.tapped["student"], task=self.task, trainable=True)
        self.teacher = self.teacher.reading(self.tapped["teacher"], task=self.task)
        self.shapes = {"student": self.student_taps.dry(batch), "teacher": self.teacher.taps.dry(batch)}

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The loss terms from what both networks said about a batch in normal form."""
        raise RequestError(
            f"{type(self).__name__} defines neither `losses` nor `forward`",
            fix="def losses(self, student, teacher, batch): return Losses({...}, {...})",
        )

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """Runs the networks once on a batch in any form that the task takes.

        Args:
            batch: a mapping with `inputs`, and `targets` and `index` where the card asks for them.
            update: the update of the stage whose loss is wanted.
        """
        batch = self.task.batch(batch)
        teacher = Record(None) if self.teacher is None else self.teacher(batch)
        return self.losses(self.student_taps(batch), teacher, batch)

    def stages(self) -> Iterable[Stage]:
        """The phases of training, in order: one that trains all the method's parameters unless overridden."""
        return [
            Stage(
                "train",
                [
                    Update(
                        "student", {"student": [self.student] if self.student else [], "method": self._own()}
                    )
                ],
            )
        ]

    def _own(self) -> list[nn.Module | nn.Parameter]:
        """What the method holds besides the student: adaptors, heads, parameters of its own."""
        children = [child for name, child in self.named_children() if name != "student"]
        return [*children, *self.parameters(recurse=False)]

    def top_k_temperatures(self) -> Sequence[float] | None:
        """The temperatures at which it reads a teacher of which only the largest outputs were kept.

        None: it needs whole outputs, and a top-k cache is refused.
        """
        return None

    def learners(self) -> list[nn.Module]:
        """The whole networks that it trains: what a long run compiles in place; adaptors are not worth it."""
        return [] if self.student is None else [self.student]

    def networks(self) -> dict[str, nn.Module]:
        """What is scored on validation data, by name; checkpoints are chosen by the first."""
        return {"student": self.deployable()}

    def deployable(self) -> nn.Module:
        """A copy of the network that is kept after training, without taps."""
        if self.student is None:
            raise RequestError(f"{type(self).__name__} has no single student; it must define `deployable`")
        return untapped(self.student)

    def enter(self, stage: Stage) -> None:
        """Makes exactly what the stage's updates train trainable; all else is frozen and in eval mode."""
        trained = {id(p) for update in stage.updates for p in update.parameters()}
        named = {id(m) for update in stage.updates for m in update.modules()}
        for parameter in self.parameters():
            parameter.requires_grad_(id(parameter) in trained)
            parameter.grad = None  # a stale gradient would let weight decay act on what is frozen
        self._resting = [m for m in self.modules() if not self._trains(m, trained, named)]
        self.train()

    def _trains(self, module: nn.Module, trained: set[int], named: set[int]) -> bool:
        held = {id(parameter) for parameter in module.parameters()}
        direct = {id(parameter) for parameter in module.parameters(recurse=False)}
        return id(module) in named or bool(held and held <= trained) or bool(direct & trained)

    def train(self, mode: bool = True) -> Method:
        """As in every module, but what the current stage does not train stays in eval mode."""
        super().train(mode)
        for module in self._resting:
            module.training = False
        return self


def copy_of(network: nn.Module) -> nn.Module:
    """A frozen copy of a network or a part of it: a child in no update, as a reused classifier."""
    return copy.deepcopy(network).eval().requires_grad_(False)
