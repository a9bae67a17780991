"""D11: lightly-ai/lightly-train#901, Deci-AI/super-gradients#183, danielsyahputra/yolo-distiller#11.

The teacher was trained with another mean and deviation, or at twice the student's size. Each network has its
own preprocessing of the same view, and a cache knows which one its answers were given under.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import CachedTeacher, Teacher
from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.views import Views
from limbeck.errors import RequestError
from limbeck.methods import KD
from limbeck.models.preprocessing import NAMED, Preprocessed, Preprocessing
from tests.check.faults import checked


def data() -> Dataset:
    pixels = torch.randint(0, 256, (32, 3, 32, 32), dtype=torch.uint8)
    return ArrayDataset(pixels, torch.arange(32) % 5).augment(Views(0, ["flip"]))


def body(size: int) -> nn.Module:
    torch.manual_seed(size)
    return nn.Sequential(nn.AvgPool2d(size // 4), nn.Flatten(), nn.Linear(48, 5))


def network(size: int, statistics: str) -> nn.Module:
    mean, std = NAMED[statistics]
    return Preprocessed(body(size), Preprocessing("image", 3, (size, size), mean, std))


def test_each_network_prepares_the_same_view_for_itself(tmp_path):
    samples = data()
    batch = samples.batch(torch.arange(32), 1)
    teacher, student = network(64, "imagenet"), network(32, "cifar100")
    stored = CachedTeacher(teacher, tmp_path / "c", samples)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NAMED["imagenet"])
    large = torch.nn.functional.interpolate(batch["inputs"], (64, 64), mode="bilinear", antialias=True)
    by_hand = teacher.body((large - mean) / std)
    assert torch.allclose(stored(batch).output, by_hand, atol=1e-5)
    live, cached = (KD(student, each)(batch).total for each in (Teacher(teacher), stored))
    assert torch.equal(live, cached)


@pytest.mark.parametrize(
    "other", [network(64, "cifar100"), network(32, "imagenet")], ids=["statistics", "size"]
)
def test_answers_under_another_preprocessing_are_refused(tmp_path, other):
    samples = data()
    CachedTeacher(network(64, "imagenet"), tmp_path / "c", samples).fill([1])
    other.load_state_dict(network(64, "imagenet").state_dict())
    torch.manual_seed(0)
    with pytest.raises(RequestError, match="another preprocessing of the teacher"):
        CachedTeacher(other, tmp_path / "c", samples).fill([1])


def test_check_says_under_which_statistics_the_teacher_is_better(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = checked("normalize-of-imagenet", tmp_path)
    assert "K106" in [each.code for each in done.findings], done.text()
