"""The teachers' answers in runs: stored once, read by all later runs, equal to a live teacher's."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from limbeck import distill, verify_cache, write_cache
from limbeck._run.screen import Screen, silent
from limbeck.errors import RequestError

ROOT = Path(__file__).parent.parent

RECIPE = """name = "tiny"
[data]
source = "fashion-small"
limit = 120
augment = ["crop", "flip"]
[teacher]
model = "cnn-tiny"
train = { epochs = 1 }
accept_chance = true
[student]
model = "cnn-tiny"
options = { widths = [4, 4, 8, 8] }
[method]
name = "kd"
[train]
epochs = 5
batch_size = 32
[export]
to = []
[machine]
threads = 1
precision = "fp32"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the recipe, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE, encoding="utf-8")
    return tmp_path


def run(*overrides: str, **given) -> tuple[dict, str]:
    stream = io.StringIO()
    done = distill("mine.toml", overrides=overrides, screen=Screen(stream, live=False), **given)
    return dict(done.figures), stream.getvalue()


def student(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "student" / "model.safetensors")


def same(one: str, other: str) -> bool:
    mine, theirs = student(one), student(other)
    return all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_the_second_run_reads_what_the_first_wrote_and_is_bit_equal(place):
    first, said = run()
    assert "480 teacher answers in 4 views" in said
    assert first["cache"]["on"]
    assert first["cache"]["written"] == 480
    second, said = run()
    assert second["folder"] == "runs/tiny-2"
    assert second["cache"]["written"] == 0
    assert "480 stored already" in said
    assert same("runs/tiny", "runs/tiny-2")
    caches = list(Path("runs/cache").iterdir())
    assert len(caches) == 1
    assert not verify_cache(caches[0]).damaged


def test_a_live_teacher_gives_the_same_student(place):
    run()
    live, said = run("cache.mode=off", "machine.teacher=[]")
    assert "teacher live: as cache.mode says" in " ".join(said.split())
    assert live["cache"] == {"on": False, "why": "as cache.mode says"}
    ones, others = student("runs/tiny"), student("runs/tiny-2")
    # No batch has fewer than 16 samples: 32, 32, 32, 24.
    assert all(torch.equal(ones[name], others[name]) for name in ones)


def test_other_methods_and_seeds_of_the_views_share_what_they_can(place):
    run()
    weights = "teacher.weights=runs/tiny/teacher"
    again, _ = run(weights, "method.temperature=2.0")
    assert again["cache"]["written"] in (0, 480)
    third, _ = run(weights, "seed=5", "method.alpha=0.5")
    assert third["cache"]["written"] == 0
    other, _ = run(weights, "data.augment=[]")
    assert other["cache"]["written"] == 120
    assert other["cache"]["views"] == 1


def test_resolved_keeps_views_and_mode(place):
    run("data.views=2")
    assert "views = 2" in Path("runs/tiny/resolved.toml").read_text()
    run("data.views=fresh")
    text = Path("runs/tiny-2/resolved.toml").read_text()
    assert 'views = "fresh"' in text
    assert 'mode = "off"' in text


def test_fresh_views_run_live_and_say_so(place):
    done = distill("mine.toml", overrides=["data.views=fresh"], dry_run=True, screen=silent())
    assert "every epoch shows new views (data.views)" in " ".join(done.text().split())


NETWORK = """
from torch import nn

class Flat(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3, stride=4), nn.Linear(4 * 49, num_classes)

    def forward(self, pixels):
        value = self.conv(pixels)
        return self.fc(value.view(len(value), -1))
"""


def test_what_a_live_teacher_cannot_do_is_settled_before_it_is_used(place, monkeypatch, caplog):
    Path("flat.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(place))
    flat = ("cache.mode=off", "teacher.model=flat:Flat")
    _, said = run(*flat, "machine.teacher=['channels_last', 'fold']")
    assert "teacher live (fold, channels_last)" in " ".join(said.split())
    assert "the teacher runs without channels_last: it fails with it" in caplog.text
    assert 'teacher = ["fold"]' in Path("runs/tiny/resolved.toml").read_text()
    run(*flat, "machine.teacher=[]")
    assert same("runs/tiny", "runs/tiny-2")


MIXING = """
from torch import nn

class Mixing(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.norm, self.fc = nn.BatchNorm2d(1, track_running_stats=False), nn.Linear(784, num_classes)

    def forward(self, pixels):
        return self.fc(self.norm(pixels).flatten(1))
"""


def test_a_teacher_whose_answers_cannot_be_kept_runs_live(place, monkeypatch):
    Path("mixing.py").write_text(MIXING)
    monkeypatch.syspath_prepend(str(place))
    figures, said = run("teacher.model=mixing:Mixing")
    assert not figures["cache"]["on"]
    assert "mixes the samples of a batch" in " ".join(said.split())
    with pytest.raises(RequestError, match="mixes the samples of a batch"):
        run("teacher.model=mixing:Mixing", "cache.mode=require")


def test_features_of_layers_are_stored_where_a_method_reads_them(place):
    figures, said = run("method.name=semckd", "method.beta=1.0")
    assert "layers each" in said
    assert figures["cache"]["layers"]
    again, _ = run("method.name=semckd", "method.beta=1.0")
    assert again["cache"]["written"] == 0
    assert same("runs/tiny", "runs/tiny-2")


def test_top_k_is_stored_at_the_temperature_of_the_method(place):
    figures, said = run("cache.top_k=3", "cache.dtype=float16")
    assert "top 3 with" in said
    assert 0.3 < figures["cache"]["kept_mass"] < 1
    assert figures["cache"]["top_k"] == 3
    key = json.loads(next(Path("runs/cache").glob("*/key.json")).read_text())
    assert key["key"]["store"]["temperatures"] == [1.0, 4.0]


def test_killed_while_it_writes_a_run_goes_on_to_the_same_student(place):
    run()
    for path in sorted(Path("runs/cache").rglob("*.npy")):
        path.unlink()
    Path("runs/cache").rename("runs/kept")
    command = [sys.executable, "-m", "limbeck", "distill", "mine.toml"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while not list(Path("runs/cache").glob("*/view-*/*")) and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = distill("runs/tiny-2", resume=True, screen=silent())
    assert done.finished
    assert same("runs/tiny", "runs/tiny-2")


# -- the verb ------------------------------------------------------------------------------------------------


def cache(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "limbeck", "cache", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_answers_written_ahead_are_read_by_the_run(place):
    run()
    weights = "teacher.weights=runs/tiny/teacher"
    planned = write_cache("mine.toml", overrides=[weights, "data.views=2"], dry_run=True, screen=silent())
    assert planned.figures["missing"] == 0  # the run has trained this very teacher
    done = write_cache("mine.toml", overrides=[weights, "data.views=6"], screen=silent())
    assert done.figures["written"] == 240
    later, _ = run(weights, "data.views=6")
    assert later["cache"]["written"] == 0


def test_the_verb_says_size_and_time_and_verifies(place):
    run()
    said = cache("mine.toml", "--set", "teacher.weights=runs/tiny/teacher", "--set", "data.seed=3")
    assert said.returncode == 0, said.stderr
    assert "480 teacher answers in 4 views" in said.stderr
    assert "to write" in said.stderr
    folder = next(line.strip() for line in said.stdout.splitlines() if "runs/cache/" in line)
    checked = cache("--verify", folder)
    assert checked.returncode == 0
    assert "480 answers" in checked.stdout
    assert "no damage" in checked.stdout
    shard = sorted(Path(folder).rglob("*.npy"))[0]
    content = bytearray(shard.read_bytes())
    content[-7] ^= 1
    shard.write_bytes(bytes(content))
    checked = cache("--verify", folder, "--json")
    assert checked.returncode == 1
    assert len(json.loads(checked.stdout)["damaged"]) == 1


def test_a_teacher_that_is_yet_to_be_trained_has_no_answers(place):
    with pytest.raises(RequestError, match="is yet to be trained"):
        write_cache("mine.toml", screen=silent())


def test_the_verb_needs_one_of_its_two_forms(place):
    for words in ((), ("mine.toml", "--verify", "x")):
        said = cache(*words)
        assert said.returncode == 2
        assert "needs a RECIPE, or --verify DIR" in said.stderr
