"""What a training run saves and restores, so that a resumed run equals the uninterrupted one bit for bit."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from limbeck.errors import RequestError
from limbeck.method import Method, Update

Schedule = LRScheduler | ReduceLROnPlateau | None


@dataclass
class Tool:
    """One update's optimizer and schedule within a stage."""

    update: Update
    optimizer: Optimizer
    schedule: Schedule
    by_step: bool
    clip_norm: float = 0.0

    def end_epoch(self, score: float) -> None:
        """Steps a schedule that counts epochs.

        Args:
            score: what a plateau is one of: the validation score, or the loss where there is none.
        """
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(score)
        elif self.schedule is not None and not self.by_step:
            self.schedule.step()

    def rates(self) -> dict[str, float]:
        """Learning rates by group."""
        return {str(group["name"]): float(group["lr"]) for group in self.optimizer.param_groups}


@dataclass
class Position:
    """Where a run stands; after `step` steps of the epoch that follows `epoch` whole ones."""

    stage: int = 0
    epoch: int = 0
    step: int = 0
    batches: int = 0
    writes: int = 0
    total_epochs: int = 0
    seconds: float = 0.0

    def next_epoch(self) -> None:
        """An epoch is over."""
        self.epoch, self.step, self.batches = self.epoch + 1, 0, 0
        self.total_epochs += 1


class Means:
    """Running means of loss terms, kept on their device: adding waits for nothing."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, float] = {}

    def add(self, terms: Mapping[str, Tensor], weight: float, update: str = "") -> None:
        """Adds the terms of a micro-batch; `update` names whose they are where there are several."""
        for term, value in terms.items():
            name = f"{update}.{term}" if update and not term.startswith(update) else term
            value = value.detach() * weight
            before = self._sums.get(name)
            if isinstance(before, Tensor):
                before = before.to(value.device)  # after a resume
            self._sums[name] = value if before is None else value + before
            self._counts[name] = self._counts.get(name, 0.0) + weight

    def values(self) -> dict[str, Tensor | float]:
        """The means so far."""
        return {name: value / self._counts[name] for name, value in self._sums.items()}

    def stored(self) -> dict[str, list[Any]]:
        """Sum (nested lists) and count by name."""
        return {name: [torch.as_tensor(v).tolist(), self._counts[name]] for name, v in self._sums.items()}

    @classmethod
    def restored(cls, stored: Mapping[str, Sequence[Any]]) -> Means:
        """The inverse of `stored`."""
        means = cls()
        for name, (value, count) in stored.items():
            means._sums[name] = torch.tensor(value) if isinstance(value, list) else value
            means._counts[name] = count
        return means


@dataclass
class Progress:
    """All that the loop knows besides tensors; stored as it is."""

    position: Position = field(default_factory=Position)
    history: list[dict[str, Any]] = field(default_factory=list)
    stage_scores: list[dict[str, Any]] = field(default_factory=list)
    scores: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, list[Any]] = field(default_factory=dict)
    notes: dict[str, list[Any]] = field(default_factory=dict)
    epoch_samples: int = 0
    chosen_epoch: int = 0
    chosen_score: float | None = None
    chosen_scores: dict[str, Any] = field(default_factory=dict)
    epochs_since: int = 0
    stage_over: bool = False
    finished: bool = False
    timed_seconds: dict[str, float] = field(default_factory=dict)
    timed_steps: int = 0

    def new_stage(self, number: int) -> None:
        """A stage is entered: what is counted within a stage starts again."""
        before = self.position
        self.position = Position(
            stage=number, writes=before.writes, total_epochs=before.total_epochs, seconds=before.seconds
        )
        self.stage_over, self.chosen_score, self.epochs_since, self.scores = False, None, 0, {}

    def choose(self, score: float | None, early_stop: int) -> bool:
        """Whether the epoch that is ending is the best of its stage so far; notes it if so.

        Args:
            score: of the first network on validation data; None chooses every epoch, so the last remains.
            early_stop: epochs without a better one after which the stage is over; 0 never.
        """
        better = score is None or self.chosen_score is None or score > self.chosen_score
        self.epochs_since = 0 if better else self.epochs_since + 1
        self.stage_over = bool(early_stop and self.epochs_since >= early_stop)
        if better:
            self.chosen_epoch, self.chosen_score = self.position.epoch + 1, score
            self.chosen_scores = self.scores
        return better

    def stored(self) -> dict[str, Any]:
        """Plain nested values for a checkpoint."""
        return asdict(self)

    @classmethod
    def restored(cls, stored: Mapping[str, Any]) -> Progress:
        """The inverse of `stored`."""
        return cls(**{**stored, "position": Position(**stored["position"])})


def tool_state(tools: Mapping[str, Tool]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and plain state of optimizers and schedules."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for name, tool in tools.items():
        state = tool.optimizer.state_dict()
        entries: dict[int, dict[str, Any]] = {}
        for number, values in state["state"].items():
            entries[number] = {}
            for key, value in values.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{number}.{key}"] = value
                else:
                    entries[number][key] = value
        schedule = None if tool.schedule is None else tool.schedule.state_dict()
        plain[name] = {"state": entries, "param_groups": state["param_groups"], "schedule": schedule}
    return tensors, plain


def restore_tools(tools: Mapping[str, Tool], tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Puts optimizers and schedules back; state of a parameter's shape takes the parameter's memory format.

    A contiguous momentum under a channels_last parameter makes fused optimizers silently wrong.
    """
    if set(plain) != set(tools):
        raise RequestError(
            f"the checkpoint has the updates {sorted(plain)}, the method {sorted(tools)}",
            fix="resume with the recipe that the run was started with",
        )
    for name, tool in tools.items():
        saved = plain[name]
        parameters = [p for group in tool.optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {number: dict(values) for number, values in saved["state"].items()}
        prefix = f"optimizer.{name}."
        for key, value in tensors.items():
            if key.startswith(prefix):
                number, _, entry = key.removeprefix(prefix).partition(".")
                state.setdefault(int(number), {})[entry] = value
        tool.optimizer.load_state_dict({"state": state, "param_groups": saved["param_groups"]})
        for parameter in parameters:
            for entry, value in tool.optimizer.state[parameter].items():
                if isinstance(value, Tensor) and value.shape == parameter.shape:
                    like = torch.empty_like(parameter, dtype=value.dtype, memory_format=torch.preserve_format)
                    tool.optimizer.state[parameter][entry] = like.copy_(value)
        if tool.schedule is not None:
            tool.schedule.load_state_dict(saved["schedule"])


def random_state() -> dict[str, Tensor]:
    """The state of every generator that training may draw from."""
    _, keys, *rest = numpy.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    state = {
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy.asarray(keys, dtype=numpy.int64)),
        "numpy_rest": torch.tensor([float(value) for value in rest], dtype=torch.float64),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_rest": torch.tensor([version, float("nan") if gauss is None else gauss], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        state |= {f"cuda{i}": value for i, value in enumerate(torch.cuda.get_rng_state_all())}
    return state


def restore_random_state(state: Mapping[str, Tensor]) -> None:
    """Puts every generator back."""
    torch.set_rng_state(state["torch"])
    position, has_gauss, gauss = state["numpy_rest"].tolist()
    keys = state["numpy"].numpy().astype(numpy.uint32)
    numpy.random.set_state(("MT19937", keys, int(position), int(has_gauss), gauss))
    version, python_gauss = state["python_rest"].tolist()
    words = tuple(state["python"].tolist())
    random.setstate((int(version), words, None if python_gauss != python_gauss else python_gauss))
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all([v for name, v in sorted(state.items()) if name.startswith("cuda")])


def method_tensors(method: Method) -> dict[str, Tensor]:
    """Parameters and buffers of a method, by name; those that share memory stay shared."""
    return {f"method.{name}": value for name, value in method.state_dict(keep_vars=False).items()}


def copied(value: Tensor) -> Tensor:
    """A contiguous copy without graph, as files want them."""
    return value.detach().clone(memory_format=torch.contiguous_format)


def restore_method(method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Puts parameters and buffers back, in place.

    Raises:
        RequestError: names or shapes differ from the method's.
    """
    saved = {name.removeprefix("method."): t for name, t in tensors.items() if name.startswith("method.")}
    try:
        method.load_state_dict(saved)
    except RuntimeError as error:
        raise RequestError(
            f"the checkpoint is of another network: {str(error).splitlines()[-1].strip()}",
            fix="resume with the recipe that the run was started with",
        ) from error
