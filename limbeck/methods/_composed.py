"""A network made of the front of one and the end of another, with a projector between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck._taps.paths import TapPath, module_names, resolve, select
from limbeck.adaptors import pool
from limbeck.errors import RequestError
from limbeck.methods._layouts import Layout


class Projector(nn.Module):
    """A student map in the channels of a teacher map: convolutions 1, 3, 1, each with batch norm and ReLU.

    The convolutions have no bias; with c = floor(teacher / factor) there are
    Cs c + 9 c^2 + c Ct + 4 c + 2 Ct parameters.

    Args:
        student: Cs, channels of the student map.
        teacher: Ct, channels of the teacher map.
        factor: 1 to Ct.
        depthwise: the 3x3 convolution works in every channel by itself, 9 c weights.
        final_relu: the last ReLU, for teacher maps that are never negative.
    """

    def __init__(
        self, student: int, teacher: int, factor: int, *, depthwise: bool = False, final_relu: bool = True
    ) -> None:
        super().__init__()
        if not 1 <= factor <= teacher:
            raise RequestError(
                f"factor {factor} for {teacher} channels of the teacher; needed 1 to {teacher}, since "
                "channels // factor remain within the projector",
                fix="factor = 2, as in the paper",
            )
        middle = teacher // factor
        groups = middle if depthwise else 1
        self.layers = nn.Sequential(
            nn.Conv2d(student, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1, groups=groups, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, teacher, 1, bias=False),
            nn.BatchNorm2d(teacher),
            nn.ReLU() if final_relu else nn.Identity(),
        )

    def forward(self, value: Tensor) -> Tensor:
        """[B, Cs, h, w] -> [B, Ct, h, w].

        Raises:
            RequestError: in train mode, a single value a channel, which has no batch statistics.
        """
        if self.training and value[:, 0].numel() == 1:
            raise RequestError(
                f"one value a channel, {tuple(value.shape)}, enters the projector, so there are no batch "
                "statistics",
                fix="a larger batch, drop_last=True, or a student layer of a higher resolution",
            )
        projected: Tensor = self.layers(value)
        return projected


@dataclass(frozen=True)
class TailPlan:
    """All that is needed to build a tail anew, without its weights; plain values.

    Args:
        layout: of the student's value, see `Layout.parse`.
        student: its channels; `teacher`: those of the teacher's map.
        features, outputs: widths of the classifier; `bias`: whether it has one.
        factor: of the projector; 0: there is none.
        depthwise, final_relu: of the projector.
        pooled: height and width that the student's map is averaged to; empty: it stays.
        map: its height and width before that; empty where it is not averaged.
        reused: modules of the teacher between projector and pooling, by name, in their order.
        number: of the teacher that they are of, from 0.
        pooling: layout of what is averaged over space before the classifier; `relu`: after a ReLU.
    """

    layout: str
    student: int
    teacher: int
    features: int
    outputs: int
    factor: int
    depthwise: bool = False
    final_relu: bool = True
    pooled: tuple[int, ...] = ()
    map: tuple[int, ...] = ()
    reused: tuple[str, ...] = ()
    number: int = 0
    pooling: str = "bchw"
    relu: bool = False
    bias: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for a `config.json`."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> TailPlan:
        """From what `to_dict` returned."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()}
        return cls(**values)


class Tail(nn.Module):
    """From a value of the student to outputs: pooling, projector, layers of the teacher, mean, classifier.

    Args:
        plan: its parts.
        reused: the teacher's modules that the plan names; used as they are, in eval mode for ever.
    """

    def __init__(self, plan: TailPlan, reused: Sequence[nn.Module] = ()) -> None:
        super().__init__()
        self.plan = plan
        self.layout, self.pooling = Layout.parse(plan.layout, "cut"), Layout.parse(plan.pooling, "reused")
        self.projector: nn.Module = nn.Identity()
        if plan.factor:
            self.projector = Projector(
                plan.student,
                plan.teacher,
                plan.factor,
                depthwise=plan.depthwise,
                final_relu=plan.final_relu,
            )
        self.reused = nn.ModuleList(reused)
        self.classifier = nn.Linear(plan.features, plan.outputs, bias=plan.bias)

    def train(self, mode: bool = True) -> Tail:
        """As in every module, but what is reused of the teacher stays in eval mode."""
        super().train(mode)
        self.reused.eval()
        return self

    def forward(self, value: Tensor) -> Tensor:
        """The student's value at the cut -> outputs [B, K].

        Raises:
            RequestError: maps of another size than that for which the pooling was made.
        """
        source = self.layout.to_map(value, "cut")
        if self.plan.pooled:
            if tuple(source.shape[2:]) != self.plan.map:
                height, width = self.plan.map
                raise RequestError(
                    f"a map of {source.shape[2]} x {source.shape[3]} at the cut; its averaging was made for "
                    f"{height} x {width}",
                    fix="inputs of the size that the network was trained with",
                )
            source = pool(source, self.plan.pooled)
        return self.answer(self.project(source))

    def project(self, source: Tensor) -> Tensor:
        """[B, C_s, h, w] -> [B, C_t, h, w]; in the type of the weights, unless autocast chooses."""
        if not torch.is_autocast_enabled(source.device.type):
            source = source.to(self.classifier.weight.dtype)
        projected: Tensor = self.projector(source)
        return projected

    def answer(self, projected: Tensor) -> Tensor:
        """A map [B, C, h, w] in the teacher's features -> outputs [B, K]."""
        value = projected
        for module in self.reused:
            value = module(value)
        value = self.pooling.to_map(value, "reused")
        features = (value.relu() if self.plan.relu else value).mean((2, 3))
        outputs: Tensor = self.classifier(features.to(self.classifier.weight.dtype))
        return outputs


class _Keep:
    """A hook that keeps the value that a path names until it is taken."""

    def __init__(self, path: TapPath) -> None:
        self.path = path
        self.calls = 0
        self.value: Tensor | None = None

    def begin(self) -> None:
        self.calls, self.value = 0, None

    def keep(self, whole: Any) -> None:
        self.calls += 1
        if self.calls == (self.path.call or 1):
            self.value = select(self.path, whole)


class _KeepOutput(_Keep):
    def __call__(self, module: nn.Module, inputs: Any, keywords: Any, output: Any) -> None:
        self.keep(output)


class _KeepInput(_Keep):
    def __call__(self, module: nn.Module, inputs: Any, keywords: Any) -> None:
        self.keep({**{str(i): value for i, value in enumerate(inputs)}, **keywords})


class Composed(nn.Module):
    """A body up to a cut, and what makes outputs of the value there.

    Args:
        body: a network of its own, which loses the modules that are unused. What it still does after the cut
            is not read.
        cut: path of the value, as in `Taps`.
        tails: each answers; the outputs are averaged.
        unused: names of modules that work after the cut alone, in the unwrapped network.
    """

    def __init__(self, body: nn.Module, cut: str, tails: Sequence[Tail], unused: Sequence[str] = ()) -> None:
        super().__init__()
        self.body = _without(body, unused)
        self.cut = cut
        self.unused = tuple(unused)
        self.tails = nn.ModuleList(tails)
        path = resolve(body, cut)
        self._kept: _Keep
        if path.entering:
            entering = _KeepInput(path)
            path.module.register_forward_pre_hook(entering, with_kwargs=True)
            self._kept = entering
        else:
            leaving = _KeepOutput(path)
            path.module.register_forward_hook(leaving, with_kwargs=True)
            self._kept = leaving

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Inputs of the body -> outputs [B, K]."""
        self._kept.begin()
        self.body(*inputs, **named)
        value = self._kept.value
        self._kept.begin()  # nothing outlives the call
        if value is None:
            raise RequestError(f"layer {self.cut!r} was not called for these inputs")
        outputs = [tail(value) for tail in self.tails]
        total: Tensor = outputs[0]
        for other in outputs[1:]:
            total = total + other
        return total / len(outputs) if len(outputs) > 1 else total

    @property
    def plans(self) -> list[TailPlan]:
        """What builds the tails anew."""
        return [cast(Tail, tail).plan for tail in self.tails]

    def release(self) -> nn.Module:
        """Takes the hook off the body and gives it back; the object cannot be called any more."""
        module = self._kept.path.module
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if id(hook) == id(self._kept)]:
                del hooks[key]
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_pre_hooks_with_kwargs.pop(key, None)
        return self.body


class Skipped(nn.Module):
    """Stands for a module whose result nobody reads: gives back what came first."""

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The first input."""
        return inputs[0] if inputs else next(iter(named.values()))


def _without(network: nn.Module, unused: Sequence[str]) -> nn.Module:
    """The network without some modules and what they hold; changed in place and returned."""
    names = module_names(network)
    for name in unused:
        gone = names[name]
        for holder in list(network.modules()):
            for child, module in list(holder.named_children()):
                if module is gone:
                    setattr(holder, child, Skipped())
    return network
