"""What a run chooses where the recipe leaves open how it computes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck._fast.processor import has_amx, supports_bf16
from limbeck._run.choices import Choice, check_compiler, compilation, settle
from limbeck._run.machine import choose, written
from limbeck._run.screen import silent
from limbeck.engine import Machine
from limbeck.errors import RequestError
from limbeck.recipe import Recipe
from limbeck.run import distill
from limbeck.task import Classification

RECIPE = '[data]\nsource = "fashion-small"\n[teacher]\nmodel = "cnn-tiny"\n[student]\nmodel = "cnn-tiny"\n'


def recipe(*changes: str) -> Recipe:
    return Recipe.parse('name = "x"\n' + RECIPE, "x.toml", ["machine.device=cpu", *changes])


def pictures(samples: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    return {
        "inputs": torch.rand(samples, 3, 16, 16, generator=generator),
        "targets": torch.zeros(samples).long(),
    }


def convolutions(width: int) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))


class Viewing(nn.Module):
    """Flattens its map as if it were contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 16 * 16, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        maps = self.conv(inputs)
        return self.head(maps.view(len(maps), -1))


def settled(network: nn.Module, *changes: str, batch: dict[str, Any] | None = None, others: Any = ()) -> Any:
    given = recipe(*changes)
    return settle(choose(given), given, [network], others, batch or pictures(), Classification())


def test_pictures_lie_in_channels_last_and_precision_is_what_the_processor_gains_by() -> None:
    wide = settled(convolutions(128))
    assert wide.machine.layout == "channels_last"
    assert wide.machine.precision == ("bf16" if supports_bf16("cpu") else "fp32")
    assert wide.text().startswith(f"{wide.machine.precision} and channels_last (")
    assert wide.text().endswith("; fp32: --set machine.precision=fp32") == supports_bf16("cpu")
    assert wide == settled(convolutions(128))
    narrow = settled(nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3), nn.ReLU(), nn.Linear(3, 3)))
    assert narrow.machine.precision == settled(convolutions(1)).machine.precision == "fp32"


def test_what_is_written_stays() -> None:
    choice = settled(convolutions(128), "machine.precision=fp32", "machine.layout=contiguous")
    assert (choice.machine.precision, choice.machine.layout, choice.text()) == ("fp32", "contiguous", "fp32")
    choice = settled(convolutions(1), "machine.precision=bf16")
    assert choice.text() == "bf16 and channels_last"
    again = settled(Viewing(), "machine.layout=channels_last")  # asked for: it is not looked at
    assert (again.machine.layout, again.notes) == ("channels_last", ())


def test_a_network_that_cannot_do_channels_last_is_named_once() -> None:
    choices = {"student": settled(Viewing()), "teacher": settled(convolutions(8), others=[Viewing()])}
    for role, choice in choices.items():
        assert choice.machine.layout == "contiguous"
        (note,) = choice.notes
        assert note.startswith(f"contiguous, not channels_last: the {role} fails in it (view size")


def test_rows_have_no_layout() -> None:
    rows = {"inputs": torch.zeros(8, 6), "targets": torch.zeros(8).long()}
    choice = settled(nn.Linear(6, 3), batch=rows)
    assert (choice.machine.layout, choice.notes) == ("contiguous", ())


def test_only_a_long_phase_on_a_device_that_gains_is_compiled() -> None:
    on_gpu = Choice(Machine(device="cuda"))
    assert not compilation(on_gpu, recipe(), [60.0, 1799.0]).machine.compile
    assert compilation(on_gpu, recipe(), [60.0, 1800.0]).machine.compile
    assert not compilation(on_gpu, recipe("machine.compile=false"), [1800.0]).machine.compile
    here = compilation(settled(convolutions(1)), recipe(), [1800.0])
    assert here.machine.compile == has_amx()
    assert "compiled" in compilation(on_gpu, recipe(), [1800.0]).text()


def test_compiling_without_a_compiler_is_refused_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    given = recipe("machine.compile=true")
    check_compiler(choose(recipe()), given)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(
        RequestError, match=r"machine\.compile is true, and there is no C\+\+ compiler"
    ) as caught:
        check_compiler(choose(given), given)
    assert caught.value.where == "--set machine.compile=true"
    assert not compilation(settled(convolutions(1)), recipe(), [1800.0]).machine.compile


def test_choices_are_written_down_and_read_back() -> None:
    machine = Machine("cpu", 2, 0, "bf16", None, "channels_last", True)
    kept = Recipe.parse('name = "x"\n' + RECIPE, "x", {"machine": written(machine).model_dump()})
    assert choose(kept) == machine
    assert recipe("machine.teacher=['fold']").machine.teacher == ["fold"]
    assert recipe("machine.teacher=[]").machine.teacher == []
    with pytest.raises(RequestError, match="machine"):
        recipe("machine.teacher=['folded']")


# -- in a run ------------------------------------------------------------------------------------------------

DATA = """
import torch

def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(96) % 3
    pixels = torch.randint(0, 128, (96, 3, 8, 8), generator=generator)
    pixels[torch.arange(96), labels] += 100
    pixels = pixels.to(torch.uint8)
    return tuple((pixels[a:b], labels[a:b]) for a, b in ((0, 64), (64, 80), (80, 96)))
"""

OWN = """
from dataclasses import replace
from limbeck.methods import KD
from limbeck import Losses, Method

class Own(Method):
    card = replace(KD.card, slug="own")

    def losses(self, student, teacher, batch):
        brightness = batch["inputs"].view(len(batch["inputs"]), -1).mean()
        return Losses({"hard": self.task.loss(student.output, batch) + 0 * brightness}, {"hard": 1.0})
"""

QUICK = """name = "quick"
[data]
source = "pictures_of_test_choices:data"
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "own_of_test_choices:Own"
[train]
epochs = 1
batch_size = 32
[machine]
threads = 1
[export]
to = []
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, text in {"pictures_of_test_choices": DATA, "own_of_test_choices": OWN}.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        Path(f"{name}.py").write_text(text, encoding="ascii")
    Path("mine.toml").write_text(QUICK, encoding="ascii")
    return tmp_path


def test_a_method_that_cannot_do_channels_last_runs_without(here: Path) -> None:
    """Code of a user's that views the pictures as if they were contiguous."""
    plan = distill("mine.toml", dry_run=True, screen=silent()).plan
    assert plan is not None
    assert "contiguous, not channels_last: the distil phase fails in it" in plan.notes
    assert "channels_last" not in plan.chosen
    with pytest.raises(RequestError, match=r"the distil phase fails in machine\.layout"):
        distill("mine.toml", overrides=["machine.layout=channels_last"], dry_run=True, screen=silent())


def test_what_was_chosen_is_kept_for_a_resume(here: Path) -> None:
    run = distill("mine.toml", overrides=["method.name=kd"], screen=silent())
    choices = run.figures["machine"]["choices"]
    assert choices["layout"] == "channels_last"
    assert run.figures["plan"]["chosen"].startswith(f"{choices['precision']} and channels_last (")
    resolved = Recipe.load(run.folder / "resolved.toml").machine
    assert (resolved.layout, resolved.precision, resolved.compile) == (
        "channels_last",
        choices["precision"],
        False,
    )
    again = distill(run.folder / "resolved.toml", output="again", screen=silent())
    one, other = (
        (folder / "student" / "model.safetensors").read_bytes() for folder in (run.folder, again.folder)
    )
    assert one == other
