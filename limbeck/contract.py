"""The checks that every method passes: `python -m limbeck.contract SLUG` or `module:Class` of one's own.

Each check builds the method with its defaults on tiny networks and looks at one promise of the interface.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck._contract.building import (
    Broken,
    changed,
    close,
    copy_of_state,
    double,
    hold,
    make,
    prepared,
    settings_for,
    stages_of,
    teachers_of,
)
from limbeck._contract.caching import a_cached_teacher_trains_to_the_same_bits
from limbeck._contract.outcome import (
    half_precision_is_finite,
    the_deployable_is_clean,
    tiny_data_is_learned,
)
from limbeck._contract.processes import run_twice
from limbeck._contract.tiny import example_for
from limbeck.engine.fitting import fit
from limbeck.engine.interruption import Interruption
from limbeck.engine.listener import Listener
from limbeck.engine.result import Fit
from limbeck.engine.settings import Machine
from limbeck.errors import Interrupted, LimbeckError
from limbeck.method import Method, Stage, Update
from limbeck.methods import resolve
from limbeck.record import Losses

#: Arguments of a constructor that are not hyper-parameters.
NETWORKS = ("self", "student", "students", "teacher", "teachers", "task", "taps", "example")

Check = Callable[[type[Method]], "str | None"]


# -- the checks ----------------------------------------------------------------------------------------


def card_is_complete(method: type[Method]) -> str | None:
    """The card says what a reader needs, and every hyper-parameter."""
    card = method.card
    for field in ("slug", "title", "paper", "equations", "tasks", "needs", "deployed"):
        hold(bool(getattr(card, field)), f"the card has no {field}")
    own = set(inspect.signature(method.__init__).parameters) - set(NETWORKS)
    hold(
        own == set(card.hyperparameters),
        f"the card's hyper-parameters differ: {own ^ set(card.hyperparameters)}",
    )
    hold(bool(inspect.getdoc(method)), "the class has no docstring")
    return None


def losses_are_weighted_sums(method: type[Method]) -> str | None:
    """Terms are finite scalars, the total is their weighted sum, in every form of batch."""
    built = make(method)
    for stage in stages_of(built):
        prepared(built, stage)
        for update in stage.updates:
            losses = built(example_for(method.card).batch(views=stage.views), update=update.name)
            hold(isinstance(losses, Losses), "forward must return Losses")
            for name, term in losses.terms.items():
                hold(
                    term.ndim == 0 and bool(term.isfinite()), f"{update.name}: {name} is not a finite scalar"
                )
            terms = {name: term.item() for name, term in losses.terms.items()}
            wanted = sum(float(losses.weights[name]) * value for name, value in terms.items())
            close = torch.isclose(losses.total.double(), torch.tensor(wanted).double(), rtol=1e-5, atol=1e-6)
            hold(
                bool(close),
                f"{update.name}: total {losses.total.item():g} is not the weighted sum {wanted:g}",
            )
            hold(not any(v.requires_grad for v in losses.notes.values()), "notes must be detached")
    return None


def gradients_reach_exactly_what_trains(method: type[Method]) -> str | None:
    """A stage's update gives gradients to all that it trains and to nothing else, and only that moves."""
    built = make(method, statistics=True)
    for stage in stages_of(built):
        prepared(built, stage)
        for update in stage.updates:
            _one_update(built, stage, update)
    return None


def _one_update(built: Method, stage: Stage, update: Update) -> None:
    place = f"stage {stage.name}, update {update.name}"
    own = {id(parameter) for parameter in update.parameters()}
    names = {id(parameter): name for name, parameter in built.named_parameters()}
    hold(own <= set(names), f"{place} trains parameters that are not the method's")
    for parameter in built.parameters():
        parameter.grad = None
    before, teachers = copy_of_state(built), [(model, copy_of_state(model)) for model in teachers_of(built)]
    batch = example_for(built.card, statistics=True).batch(views=stage.views)
    built(batch, update=update.name).total.backward()
    for parameter in built.parameters():
        name, mine = names[id(parameter)], id(parameter) in own
        hold(mine or parameter.grad is None, f"{place}: the loss reaches {name}, which it does not train")
        hold(not mine or parameter.grad is not None, f"{place}: {name} is to be trained and gets no gradient")
    built.optimizers[update.name].step()
    resting = {id(m) for m in built._resting}
    allowed = {names[key] for key in own} | {
        f"{path}.{name}" if path else name
        for path, module in built.named_modules()
        for name, _ in module.named_buffers(recurse=False)
        if id(module) not in resting
    }
    moved = changed(built, before)
    hold(moved <= allowed, f"{place}: {sorted(moved - allowed)[:3]} moved, which it does not train")
    for model, state in teachers:
        hold(not changed(model, state), f"{place}: the teacher changed")


def the_teacher_stays_out(method: type[Method]) -> str | None:
    """The teacher is in no parameters and no state, bit-equal after training, without gradients."""
    if method.card.teacher in ("none", "trained"):
        return f"the card says: teacher {method.card.teacher}"
    built = make(method, statistics=True)
    model = built.teacher.model  # type: ignore[union-attr]
    theirs = {id(value) for value in (*model.parameters(), *model.buffers())}
    hold(not theirs & {id(p) for p in built.parameters()}, "the teacher is among the parameters")
    places = {value.data_ptr() for value in model.state_dict().values() if value.numel()}
    mine = {value.data_ptr() for value in built.state_dict().values() if value.numel()}
    hold(not places & mine, "the state holds the teacher")
    before = copy_of_state(model)
    fit(built, example_for(method.card, statistics=True).data(), settings=settings_for(4))
    built.train()
    hold(not changed(model, before), "training changed the teacher")
    hold(not any(module.training for module in model.modules()), "the teacher left eval mode")
    hold(all(parameter.grad is None for parameter in model.parameters()), "the teacher has gradients")
    return None


def the_state_can_be_put_back(method: type[Method]) -> str | None:
    """The state of one method in another gives the same losses."""
    one, other = make(method), make(method, seed=7)
    for mine, theirs in zip(stages_of(one), stages_of(other), strict=True):
        prepared(one, mine)
        prepared(other, theirs)
        other.load_state_dict(one.state_dict())
        for update in mine.updates:
            batch, totals = example_for(method.card).batch(views=mine.views), []
            for built in (one, other):
                torch.manual_seed(0)
                totals.append(built(batch, update=update.name).total.detach())
            hold(torch.equal(*totals), f"losses differ in {mine.name}")
    return None


def the_same_seed_is_the_same_run(method: type[Method]) -> str | None:
    """Two runs with one seed are bit-equal."""
    one, two = _trained(method), _trained(method)
    hold(not changed(one.method, copy_of_state(two.method)), "two runs with one seed differ")
    hold([e["terms"] for e in one.history] == [e["terms"] for e in two.history], "their losses differ")
    return None


def a_stopped_run_goes_on_to_the_same_bits(method: type[Method]) -> str | None:
    """Stopped at several moments, within epochs and between stages, and resumed."""
    whole = _trained(method)
    total = _Stopper.counted
    for after in sorted({1, total // 3, total // 2, total - 2}):
        with tempfile.TemporaryDirectory() as folder:
            stopper = _Stopper(after)
            with contextlib.suppress(Interrupted):
                _trained(method, folder=folder, listener=stopper, interruption=stopper.interruption)
            resumed = _trained(method, folder=folder, resume=True)
        hold(
            not changed(resumed.method, copy_of_state(whole.method)),
            f"stopped after step {after}: weights differ",
        )
        terms = [[entry["terms"] for entry in run.history] for run in (resumed, whole)]
        hold(terms[0] == terms[1], f"stopped after step {after}: losses differ")
    return None


class _Stopper(Listener):
    counted = 0

    def __init__(self, after: int = -1) -> None:
        self.after, self.interruption = after, Interruption()
        type(self).counted = 0

    def on_step(self, event: Any) -> None:
        type(self).counted += 1
        if self.counted == self.after:
            self.interruption.signal_number = signal.SIGINT


def _trained(method: type[Method], *, epochs: int = 5, **given: Any) -> Fit:
    example = example_for(method.card, statistics=True, dropout=0.1)
    built = make(method, statistics=True)
    given.setdefault("listener", _Stopper())
    return fit(built, example.data(20), example.data(12, seed=1), settings_for(epochs), seed=3, **given)


def micro_batches_equal_one_batch(method: type[Method]) -> str | None:
    """Accumulated gradients of micro-batches are those of the whole batch."""
    if method.card.couples_batch:
        return "the card says: the loss of a sample depends on the others of its batch"
    whole, cut = _in_double(method, Machine()), _in_double(method, Machine(micro_batch=3))
    close(copy_of_state(whole), copy_of_state(cut), "micro-batches")
    return None


def two_processes_equal_one(method: type[Method]) -> str | None:
    """Two real processes (gloo) come to the weights of one, within 1e-6."""
    if method.card.couples_batch:
        return "the card says: the loss of a sample depends on the others of its batch"
    name = f"{method.__module__}:{method.__qualname__}"
    with tempfile.TemporaryDirectory() as folder:
        wrong = run_twice(["-m", "limbeck.contract", "--process", folder, name])
        hold(not any(wrong), f"a process failed: {''.join(wrong)}")
        states = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    alone = copy_of_state(_in_double(method, Machine(device="cpu")))
    close(alone, states[0], "two processes")
    hold(all(torch.equal(states[0][key], states[1][key]) for key in states[0]), "the processes differ")
    return None


def _in_double(method: type[Method], machine: Machine) -> Method:
    """Trained in float64 on data of which a third has no label."""
    built = make(method)
    double(built)
    data = example_for(method.card).data(22, double=True, unlabelled=True)
    fit(built, data, settings=settings_for(4, optimizer="SGD"), machine=machine)
    return built


def a_perfect_student_gives_the_minimum(method: type[Method]) -> str | None:
    """Student = teacher gives the terms that the card names."""
    minimum = method.card.minimum
    if minimum is None:
        return "the card names no minimum"
    built = make(method, same=True)
    found: dict[str, Tensor] = {}
    for stage in stages_of(built):
        prepared(built, stage)
        for update in stage.updates:
            found |= built(example_for(method.card).batch(views=stage.views), update=update.name).detached()
    for name, value in minimum.items():
        hold(name in found, f"no term {name!r} among {sorted(found)}")
        hold(abs(float(found[name]) - value) < 1e-5, f"{name} is {float(found[name]):g}, not {value:g}")
    return None


CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        card_is_complete,
        losses_are_weighted_sums,
        gradients_reach_exactly_what_trains,
        the_teacher_stays_out,
        the_state_can_be_put_back,
        the_same_seed_is_the_same_run,
        a_stopped_run_goes_on_to_the_same_bits,
        micro_batches_equal_one_batch,
        two_processes_equal_one,
        a_perfect_student_gives_the_minimum,
        the_deployable_is_clean,
        tiny_data_is_learned,
        half_precision_is_finite,
        a_cached_teacher_trains_to_the_same_bits,
    )
}


@dataclasses.dataclass(frozen=True)
class Result:
    """What came of a check: `passed`, `failed` with the broken promise, or `left out` with the reason."""

    check: str
    outcome: str
    said: str = ""

    def __str__(self) -> str:
        return f"{self.outcome:8}  {self.check}{': ' + self.said if self.said else ''}"


def run(name: str) -> list[Result]:
    """All checks on a method by slug or `module:Class`."""
    method = resolve(name)
    results = []
    for title, check in CHECKS.items():
        try:
            reason = check(method)
            results.append(Result(title, "left out" if reason else "passed", reason or ""))
        except (Broken, LimbeckError) as error:
            results.append(Result(title, "failed", str(error)))
        except Exception as error:  # noqa: BLE001 - a user's method may raise anything; the check failed then
            place = traceback.extract_tb(error.__traceback__)[-1]
            results.append(
                Result(title, "failed", f"{type(error).__name__}: {error} ({place.filename}:{place.lineno})")
            )
    return results


def main(arguments: Sequence[str]) -> int:
    """The command line of the module; returns the exit code."""
    if len(arguments) == 3 and arguments[0] == "--process":
        torch.set_num_threads(1)
        state = copy_of_state(_in_double(resolve(arguments[2]), Machine(device="cpu")))
        torch.save(state, Path(arguments[1]) / f"{torch.distributed.get_rank()}.pt")
        torch.distributed.destroy_process_group()
        return 0
    if len(arguments) != 1:
        print("python -m limbeck.contract SLUG|module:Class", file=sys.stderr)
        return 2
    sys.path.insert(0, os.getcwd())
    try:
        results = run(arguments[0])
    except LimbeckError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for result in results:
        print(result)
    failed = sum(result.outcome == "failed" for result in results)
    print(f"{sum(result.outcome == 'passed' for result in results)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
