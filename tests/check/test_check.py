"""`check` as it is seen: screen, JSON, notebook, exit codes, `--explain`, places of `--set`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck import Recipe, check, cli
from limbeck._check import costs
from limbeck._check.desk import Desk
from limbeck._check.terms import dry_terms
from limbeck._findings import CATALOGUE
from limbeck._run.chance import Look
from limbeck._run.plan import Plan
from limbeck._run.screen import silent
from limbeck._run.session import open_session
from limbeck.errors import RequestError
from tests.check.planted import RECIPE, saved, weights

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    saved(tmp_path)
    Path("mine.toml").write_text(RECIPE, encoding="ascii")


@pytest.fixture
def limbeck(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            cli.main(words)
        out, err = capsys.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, out, err

    return call


def test_the_screen_of_a_faulty_recipe(limbeck: Call) -> None:
    saved(Path(), state=weights("imagenet"))
    code, out, err = limbeck("check", "mine.toml")
    lines = out.splitlines()
    assert code == 1
    assert err == ""
    assert lines[0].startswith("scores  80 validation: teacher 25.0 %, untrained student ")
    assert "chance 25.0 %" in out
    assert any(line.startswith("losses  hard 1.") for line in lines)
    assert any(line.startswith("cost    ") for line in lines)
    first = next(n for n, line in enumerate(lines) if line.startswith("error K106: "))
    assert lines[first + 1] == '  mine.toml:7:1   normalize = "none"'
    assert lines[-3] == '  fix: normalize = "imagenet" in [teacher], line 7'
    assert lines[-2].startswith("1 error, ")
    assert lines[-2].endswith(" s; nothing trained, nothing written")
    assert lines[-1] == f"{'more: limbeck check --explain K106':<64}(exit code 1)"
    assert all(len(line) <= 80 for line in lines)


def test_a_right_recipe_exits_with_0_and_warnings_do_too(limbeck: Call) -> None:
    code, out, _ = limbeck("check", "mine.toml")
    assert code == 0
    assert "error" not in out
    code, out, _ = limbeck("check", "mine.toml", "--set", "method.temperature=1e5")
    assert code == 0
    assert "warning K203" in out
    assert "  --set method.temperature=1e5" in out
    assert out.splitlines()[-1].endswith("(exit code 0)")


def test_json_is_one_object_with_findings_and_figures(limbeck: Call) -> None:
    saved(Path(), state={name: value[[0, 0, 0, 0]] for name, value in weights().items()})
    code, out, _ = limbeck("check", "mine.toml", "--json")
    found = json.loads(out)
    assert code == 1
    assert found["schema"] == 1
    assert [each["code"] for each in found["findings"]] == ["K104"]
    assert found["findings"][0]["where"] == "mine.toml:6:1"
    assert found["scores"]["teacher"] == pytest.approx(0.25)
    assert set(found["losses"]["terms"]) == {"hard", "soft"} == set(found["losses"]["gradients"])
    assert found["cost"]["step_seconds"] > 0
    assert "K104" not in found["passed"]


def test_a_notebook_sees_small_html_without_script() -> None:
    done = check("mine.toml", overrides={"method.temperature": 1e5}, screen=silent())
    html = done._repr_html_()
    assert repr(done) == done.text()
    assert "K203" in html
    assert "<script" not in html
    assert len(html) < 20_000


def test_explain_prints_a_code_without_a_recipe(limbeck: Call) -> None:
    code, out, _ = limbeck("check", "--explain", "k104")
    assert code == 0
    assert out.startswith("K104: The teacher is no better than chance (error of limbeck check)")
    assert all(len(line) <= 80 for line in out.splitlines())
    code, out, _ = limbeck("check", "--explain", "K104", "--json")
    assert json.loads(out)["title"] == CATALOGUE["K104"].title


def test_what_cannot_be_read_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="no recipe"):
        check("nothing.toml", screen=silent())
    with pytest.raises(RequestError, match="unknown key"):
        check("mine.toml", overrides=["train.epoch=3"], screen=silent())


def test_rows_that_repeat_by_chance_are_no_leak() -> None:
    words = RECIPE.replace("pictures", "repeating_rows").replace("levels", "rows")
    words = words.replace('weights = "teacher.safetensors"\nnormalize = "none"\n', "")
    Path("mine.toml").write_text(words.replace('normalize = "none"\n', ""), encoding="ascii")
    done = check("mine.toml", screen=silent())
    assert not done.findings, done.text()
    assert any("no more than train repeats its own" in note for note in done.notes)


def test_terms_and_gradients_are_those_of_a_slow_computation() -> None:
    """Unweighted terms of the first batch, and the norm of each weighted one's gradient."""
    changes = ["method.hard_weight=0.5", "method.soft_weight=2.0", "machine.precision=fp32"]
    session = open_session(Recipe.load("mine.toml", changes))
    found = dry_terms(session, [session.teacher()])
    student, teacher = session.student(), session.teacher()
    batch = session.train.batch(torch.arange(16))
    own, theirs = student(batch["inputs"]), teacher(batch["inputs"]).detach()
    hard = nn.functional.cross_entropy(own, batch["targets"])
    p, q = (theirs / 4).softmax(1), (own / 4).softmax(1)
    soft = 16 * (p * (p.clamp(min=1e-30).log() - q.log())).sum(1).mean()
    assert found.values["hard"] == pytest.approx(hard.item(), rel=1e-4)
    assert found.values["soft"] == pytest.approx(soft.item(), rel=1e-4)
    for name, value in {"hard": 0.5 * hard, "soft": 2.0 * soft}.items():
        gradients = torch.autograd.grad(value, list(student.parameters()), retain_graph=True)
        norm = math.sqrt(sum(float(each.square().sum()) for each in gradients))
        assert found.pulls[name] == pytest.approx(norm, rel=1e-3)
    assert found.broken is None


def test_too_little_memory_and_disk_are_findings() -> None:
    desk = Desk(Recipe.load("mine.toml"))
    session = open_session(desk.recipe)
    need = costs.memory_of_a_step(session, [session.student()], [session.teacher()])
    assert 16 * 3 * 4 * 4 < need < 10**6  # at least what pooling gives for the batch
    costs.check_memory(desk, session, need, need)
    assert not desk.findings
    costs.check_memory(desk, session, need, need // 3)
    assert desk.findings[0].code == "K111"
    assert "micro_batch = " in (desk.findings[0].fix or "")
    plan = Plan("", "runs/x", "", [], memory=900, disk=90, same="", chosen="", limits={"disk": 100})
    for limits, code in (({"disk": 80}, "K112"), ({"disk": 100}, "K211"), ({"memory": 1000}, "K211")):
        desk.findings.clear()
        costs.check_plan(desk, replace(plan, limits=limits))
        assert [each.code for each in desk.findings] == [code]


def test_another_order_is_tried_on_other_samples_than_it_was_told_by() -> None:
    """Answers by chance must not look like a permutation, though one is always best on what it was fitted."""
    generator = torch.Generator().manual_seed(0)
    target = torch.arange(500) % 100
    guesses = Look(target, torch.randint(0, 100, (500,), generator=generator))
    assert guesses.renamed() < 0.1
    moved = Look(target, (target + 7) % 100)
    assert moved.accuracy == 0
    assert moved.renamed() == 1
