"""Checks of the contract suite on what comes out: the network that is deployed, learning, half precision."""

from __future__ import annotations

import copy

import torch

from limbeck._contract.building import hold, make, prepared, settings_for, stages_of, teachers_of
from limbeck._contract.tiny import example_for
from limbeck._taps.hooks import Hook
from limbeck.engine.fitting import fit
from limbeck.method import Method


def the_deployable_is_clean(method: type[Method]) -> str | None:
    """It is a copy without taps, equal to what is scored, in eval mode and whatever training does."""
    built = make(method, statistics=True)
    example = example_for(method.card, statistics=True)
    fit(built, example.data(), settings=settings_for(2))
    deployed = built.deployable().eval()
    left = [
        name
        for name, module in deployed.named_modules()
        for hook in (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        if isinstance(hook, Hook)
    ]
    hold(not left, f"taps are left on {left[:3]}")
    mine = {value.data_ptr() for value in built.state_dict().values() if value.numel()}
    shared = [n for n, v in deployed.state_dict().items() if v.numel() and v.data_ptr() in mine]
    hold(not shared, f"the deployable shares {shared[:3]} with what trains")
    batch = example.batch()
    with torch.no_grad():
        said = example.task.call(deployed, example.task.batch(batch))
        scored = [example.task.call(n.eval(), example.task.batch(batch)) for n in built.networks().values()]
    hold(any(torch.equal(said, other) for other in scored), "the deployable is none of the scored networks")
    return None


def tiny_data_is_learned(method: type[Method]) -> str | None:
    """Twenty-four samples that can be told apart are."""
    example = example_for(method.card, statistics=True)
    built = make(method, statistics=True)
    teacher = built.teacher.model if built.teacher is not None else None
    if teacher is not None:
        from limbeck.methods.plain import Plain

        pupil = copy.deepcopy(teacher).requires_grad_(True)
        fit(Plain(pupil, task=example.task), example.data(), settings=settings_for(40))
        teacher.load_state_dict(pupil.state_dict())
    result = fit(built, example.data(), example.data(), settings_for(60))
    best = max(scores[example.task.score_name] for scores in result.scores.values())
    hold(best >= 0.75, f"{example.task.score_name} on its training data is {best:.2f} after 60 epochs")
    return None


def half_precision_is_finite(method: type[Method]) -> str | None:
    """A bfloat16 teacher and autocast give finite losses in float32."""
    built = make(method, statistics=True)
    for model in teachers_of(built):
        model.to(torch.bfloat16)
    for stage in stages_of(built):
        prepared(built, stage)
        for update in stage.updates:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                losses = built(
                    example_for(method.card, statistics=True).batch(views=stage.views), update=update.name
                )
            for name, term in losses.terms.items():
                hold(bool(term.isfinite()), f"{update.name}: {name} is not finite")
                hold(term.dtype == torch.float32, f"{update.name}: {name} is {term.dtype}, not float32")
            losses.total.backward()
    return None
