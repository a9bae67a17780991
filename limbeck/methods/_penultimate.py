"""The last features of a network: what enters its classifier, or what it says where it has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from limbeck._taps.paths import plain
from limbeck._taps.proposals import few
from limbeck._taps.survey import beside, undisturbed
from limbeck.errors import RequestError
from limbeck.methods._classifier import Call, calls, classifier_of, close
from limbeck.taps import Taps
from limbeck.task import Task

_FIX = 'what enters the classifier, as taps = { student = ["fc.input"], teacher = ["fc.input"] }'
_SAMPLES = 16  # that show the classifiers


@dataclass(frozen=True)
class Last:
    """The last features of a network.

    Args:
        path: the layer that holds them.
        width: D.
        number: of the network's outputs; 0 where they are no [B, K].
        name, classifier: the Linear whose outputs are the network's; "" and None where there is none.
        enters: the layer holds what enters it.
    """

    path: str
    width: int
    number: int
    name: str
    classifier: nn.Linear | None
    enters: bool


def last_of_both(
    student: nn.Module,
    teacher: nn.Module,
    task: Task,
    taps: Mapping[str, Sequence[str]] | None,
    example: Any,
    slug: str,
    *,
    headless: bool = False,
) -> tuple[Last, Last]:
    """The last features of student and teacher, with one batch.

    Args:
        student: a network that ends in a Linear, unless its layer is named.
        teacher: a network, which may have no classifier.
        task: how the batch enters both.
        taps: as the user gave them.
        example: the batch, in any form.
        slug: of the method, for messages.
        headless: the student too may have no classifier.

    Raises:
        RequestError: no example, or no features; see `last_of`.
    """
    if example is None:
        raise RequestError(
            f"{slug} looks for the features of both networks with one batch, and none was given",
            fix="example=next(iter(loader))",
        )
    samples, paths = few(task.batch(example), _SAMPLES), _named(taps, slug)
    own = last_of(student, paths["student"], samples, task, "student", headless=headless)
    return own, last_of(teacher, paths["teacher"], samples, task, "teacher", headless=True)


def _named(taps: Mapping[str, Sequence[str]] | None, slug: str) -> dict[str, str | None]:
    """The layer that the user named of each network; None where none is.

    Raises:
        RequestError: other keys, or several layers of a network.
    """
    given = {side: list(paths or ()) for side, paths in (taps or {}).items()}
    if set(given) - {"student", "teacher"}:
        raise RequestError(f"taps {given}; needed the keys student and teacher", fix=_FIX)
    for side, paths in given.items():
        if len(paths) > 1:
            raise RequestError(
                f"{slug} reads one {side} layer, and {len(paths)} are named", fix=f"one of each: {_FIX}"
            )
    return {side: next(iter(given.get(side, [])), None) for side in ("student", "teacher")}


def last_of(
    network: nn.Module,
    path: str | None,
    samples: Mapping[str, Any],
    task: Task,
    side: str,
    *,
    headless: bool,
) -> Last:
    """Finds the last features of a network with a dry batch; the network is left as it was.

    Args:
        network: student or teacher.
        path: the layer as the user named it; None looks for it.
        samples: some, in normal form.
        task: how they enter it.
        side: "student" or "teacher", for messages.
        headless: a network without a classifier says its features; otherwise it is refused.

    Raises:
        RequestError: the network does not end in one Linear and may not be headless, or its features are
            not one vector a sample.
    """
    seen, output = calls(network, samples, task)
    found = classifier_of(seen, output)
    if path is None:
        path = f"{found[0].name}.input" if found is not None else _said(seen, output) if headless else None
    if path is None:
        raise RequestError(
            f"the {side} {type(plain(network)).__name__} does not end in one Linear, so its features are not "
            "known",
            fix=f'name the layer that holds them, [B, D] after pooling: taps = {{ {side} = ["pool"] }}',
        )
    value = read(network, path, samples, task, side)
    number = output.shape[1] if isinstance(output, Tensor) and output.ndim == 2 else 0
    if found is None:
        return Last(path, value.shape[1], number, "", None, enters=False)
    call, linear = found[0], found[0].module
    assert isinstance(linear, nn.Linear)
    enters = call.entering is not None and close(value, call.entering)
    return Last(path, value.shape[1], number, call.name, linear, enters)


def vector(value: Tensor, layer: str) -> Tensor:
    """A feature [B, D], or [B, D, 1, 1] flattened to it.

    Raises:
        RequestError: another form, or values that are not real numbers.
    """
    if value.ndim > 2 and value[0].numel() == value.shape[1]:
        value = value.flatten(1)
    if value.ndim != 2 or not value.is_floating_point():
        kind = str(value.dtype).removeprefix("torch.")
        raise RequestError(
            f"layer {layer} gives {kind} {tuple(value.shape)}; needed one real vector a sample, [B, D] after "
            "pooling",
            fix=_FIX,
        )
    return value


def read(network: nn.Module, path: str, samples: Mapping[str, Any], task: Task, side: str) -> Tensor:
    """The feature of a network at a layer in eval mode, [B, D]; the network is left as it was."""
    taps = Taps(network, [path], task=task, trainable=False)
    try:
        with undisturbed(network, training=False) as bare:
            value = taps(beside(bare, samples))[path]
    finally:
        taps.remove()
    return vector(value, f"{side} {path!r}")


def _said(seen: Sequence[Call], output: Any) -> str | None:
    """The outermost module whose value is the output [B, D]; None if there is none."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        return None
    names = [call.name for call in seen if call.leaving is output and call.usable and call.name]
    return min(names, key=lambda name: name.count("."), default=None)
