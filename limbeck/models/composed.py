"""Networks made of the front of one and the end of another: how they are described, built and saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from limbeck._taps.paths import module_names
from limbeck.errors import RequestError
from limbeck.method import copy_of
from limbeck.methods._composed import Composed, Tail, TailPlan
from limbeck.models.building import PRETRAINED, Architecture, Raw, without
from limbeck.models.preprocessing import Preprocessed
from limbeck.models.registry import COMPOSED, make

_KEYS = ("body", "cut", "unused", "tails", "teachers")


def describe(network: Composed, body: Architecture, teachers: Sequence[Architecture]) -> Architecture:
    """What builds a composed network again.

    Args:
        network: as a method deploys it.
        body: of the network that was cut.
        teachers: of those whose modules it holds, in their order; none where it holds a classifier alone.
    """
    plans = network.plans
    options = {
        "body": _random(body).to_dict(),
        "cut": network.cut,
        "unused": list(network.unused),
        "tails": [plan.to_dict() for plan in plans],
        "teachers": [_random(each).to_dict() for each in teachers],
    }
    return Architecture(COMPOSED, plans[0].outputs, body.channels, body.size, options)


def outward(network: Composed) -> Preprocessed | Composed:
    """The same network with the preprocessing of its body in front of all; the one given is used up."""
    if not isinstance(network.body, Preprocessed):
        return network
    preprocessed = network.release()
    assert isinstance(preprocessed, Preprocessed)
    tails = [tail for tail in network.tails if isinstance(tail, Tail)]
    composed = Composed(preprocessed.body, network.cut, tails)
    composed.unused = network.unused  # gone from the body already
    return Preprocessed(composed, preprocessed.preprocessing)


def build(architecture: Architecture, *, run_code: bool) -> Raw:
    """A composed network with random weights.

    Raises:
        RequestError: the options are not those that `describe` gives.
    """
    options = architecture.options
    if set(options) != set(_KEYS):
        raise RequestError(
            f"{COMPOSED!r} names a network that only its own folder can describe",
            fix="the folder of the student",
        )
    body = _make(options["body"], run_code)
    teachers = [_make(each, run_code) for each in options["teachers"]]
    tails = []
    for plain in options["tails"]:
        plan = TailPlan.from_dict(plain)
        names = module_names(teachers[plan.number].network) if plan.reused else {}
        tails.append(Tail(plan, [copy_of(names[name]) for name in plan.reused]))
    return Raw(Composed(body.network, options["cut"], tails, options["unused"]), notes=body.notes)


def _make(plain: Mapping[str, Any], run_code: bool) -> Raw:
    raw = make(Architecture.from_dict(plain), run_code=run_code)
    return replace(raw, network=raw.network.body) if isinstance(raw.network, Preprocessed) else raw


def _random(architecture: Architecture) -> Architecture:
    """The same without fetching weights, which come from the folder."""
    return replace(architecture, options=without(architecture.options, PRETRAINED))
