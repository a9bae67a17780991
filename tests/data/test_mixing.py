"""Mixed batches: as the papers say, and the same for any processes, micro-batches and workers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from limbeck.data import counter
from limbeck.data.assembly import Options
from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.loader import Loader
from limbeck.data.mixing import ALPHA, Mixing, mixing_of, symmetric_beta
from limbeck.data.views import Views
from limbeck.errors import RequestError


def pictures(kind: str = "mixup", number: int = 53) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (number, 3, 8, 10), dtype=torch.uint8, generator=generator)
    data = ArrayDataset(pixels, torch.arange(number) % 7).augment(Views(0, ["crop", "flip"]))
    return data.mix(Mixing(kind, ALPHA[kind]))


def whole(data: Dataset, **given: Any) -> list[dict[str, Tensor]]:
    """Every batch of an epoch over all processes and micro-batches, `mixed` flattened."""
    world = given.pop("world", 1)
    ranks = [Loader(data, 12, seed=3, mix=True, rank=rank, world=world, **given) for rank in range(world)]
    batches = []
    for pieces in zip(*ranks, strict=True):
        micros = [{**micro, **micro["mixed"], "own": micro["targets"]} for part in pieces for micro in part]
        keys = micros[0].keys() - {"mixed"}
        batches.append({key: torch.cat([micro[key] for micro in micros]) for key in keys})
    return batches


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
@pytest.mark.parametrize(
    "given",
    [
        {"world": 2},
        {"micro_batches": 3},
        {"world": 2, "micro_batches": 2},
        {"num_workers": 1},
        {"world": 2, "num_workers": 2},
    ],
    ids=str,
)
def test_the_same_for_any_processes_micro_batches_and_workers(kind: str, given: dict[str, Any]) -> None:
    alone, cut = whole(pictures(kind), view=2), whole(pictures(kind), view=2, **given)
    assert len(alone) == len(cut) == 5
    for one, other in zip(alone, cut, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_a_batch_is_that_of_a_plain_loop(kind: str) -> None:
    data = pictures(kind)
    plain = Loader(data, 12, seed=3)
    for number, (batch, (micro,)) in enumerate(zip(whole(data), plain, strict=True)):
        size, share = len(micro["index"]), float(batch["share"][0])
        partners = counter.permutation(size, "mix.partner", 3, 0, 0, number)
        assert torch.equal(batch["index"], micro["index"])
        assert torch.equal(batch["own"], micro["targets"])
        assert batch["view"].tolist() == [-1] * size
        assert batch["share"].tolist() == [share] * size
        assert torch.equal(batch["targets"], micro["targets"][partners])
        own, others = micro["inputs"], micro["inputs"][partners]
        if kind == "mixup":
            torch.testing.assert_close(batch["inputs"], share * own + (1 - share) * others)
            continue
        box = (batch["inputs"] != own).any(1).any(0)  # of some sample at least, the partner's pixel differs
        assert torch.equal(batch["inputs"], torch.where(box, others, own))
        assert share == pytest.approx(1 - float(box.double().mean()), abs=1e-6)
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert int(rows * columns) == int(box.sum())


def test_mixing_depends_on_seed_stage_epoch_and_batch() -> None:
    data, seen = pictures(), set()
    for seed, stage, epoch in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]:
        loader = Loader(data, 12, seed=seed, stage=stage, epoch=epoch, mix=True)
        seen |= {float(micro["mixed"]["share"][0]) for (micro,) in loader}
        again = Loader(data, 12, seed=seed, stage=stage, epoch=epoch, mix=True, start_batch=2)
        for (one,), other in zip(again, list(loader)[2:], strict=True):
            assert torch.equal(one["inputs"], other[0]["inputs"])
    assert len(seen) == 20


def test_nothing_is_mixed_unless_it_is_for_training() -> None:
    (micro,) = next(iter(Loader(pictures(), 12, seed=0)))
    assert "mixed" not in micro
    plain = ArrayDataset(torch.zeros(4, 1, 2, 2), torch.zeros(4))
    assert "mixed" not in next(iter(Loader(plain, 2, seed=0, mix=True)))[0]


def test_unlabelled_samples_and_columns_are_kept() -> None:
    targets = torch.arange(53) % 7
    targets[::2] = -1
    data = pictures().with_targets(targets).with_columns({"extra": torch.arange(53.0)})
    for batch in whole(data):
        assert torch.equal(batch["own"], targets[batch["index"]])
        assert torch.equal(batch["extra"], batch["index"].float())
        assert sorted(batch["targets"].tolist()) == sorted(batch["own"].tolist())


def assert_same_distribution(own: Any, other: Any) -> None:
    """Kolmogorov and Smirnov's test of two samples, 99.9 %."""
    both = np.concatenate([own, other])
    shares = [np.searchsorted(np.sort(each), both, side="right") / len(each) for each in (own, other)]
    assert np.abs(shares[0] - shares[1]).max() < 1.95 * (1 / len(own) + 1 / len(other)) ** 0.5


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 0.51, 1.0, 4.0, 50.0])
def test_shares_are_distributed_as_beta(alpha: float) -> None:
    own = np.array([symmetric_beta(alpha, 0, i) for i in range(1500)])
    assert_same_distribution(own, np.random.default_rng(0).beta(alpha, alpha, 30000))
    assert own.min() >= 0
    assert own.max() <= 1


def test_a_share_of_a_tiny_alpha_is_a_number() -> None:
    assert all(0 <= symmetric_beta(1e-4, i) <= 1 for i in range(50))


def test_draws_are_pinned() -> None:
    shares = [symmetric_beta(alpha, 5, "pinned") for alpha in (0.2, 1.0)]
    assert shares == pytest.approx([0.9967190555909949, 0.46442606004006864], abs=1e-9)
    assert Mixing("mixup", 1.0).partners(6, 0, 0, 1, 2).tolist() == [2, 1, 0, 4, 5, 3]


def test_boxes_are_distributed_as_in_the_paper() -> None:
    number, size = 1500, 32
    pixels = torch.zeros(1, 1, size, size)
    own, random = [], np.random.default_rng(0)
    for batch in range(number):
        mixed = Mixing("cutmix", 1.0).mixed(
            {"inputs": pixels, "index": torch.zeros(1)},
            {"inputs": pixels + 1, "targets": torch.ones(1)},
            *(0, 0, 0, batch),
        )
        own.append(float(mixed["mixed"]["share"][0]))
        assert float(mixed["inputs"].mean()) == pytest.approx(1 - own[-1], abs=1e-6)
    half = (size * np.sqrt(1 - random.beta(1, 1, 20 * number))).astype(int) // 2
    spans = []
    for _ in range(2):
        centre = random.integers(size, size=20 * number)
        spans.append(np.clip(centre + half, 0, size) - np.clip(centre - half, 0, size))
    assert_same_distribution(np.array(own), 1 - spans[0] * spans[1] / size**2)


def test_several_views_of_a_sample_are_not_mixed() -> None:
    with pytest.raises(RequestError, match="4 views of each sample"):
        Loader(pictures(), 4, seed=0, mix=True, places=4)
    Loader(pictures(), 4, seed=0, places=4)


@pytest.mark.parametrize(
    ("mix", "alpha", "said"),
    [
        ("mixpu", None, "data.mix = 'mixpu'"),
        ("mixup", 0.0, "data.mix_alpha = 0.0; needed a number above 0"),
        ("mixup", -1.0, "above 0"),
        ("cutmix", float("inf"), "above 0"),
        ("none", 1.0, "only read with data.mix"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_read(mix: str, alpha: float | None, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Options(mix=mix, mix_alpha=alpha)


def test_defaults_are_the_papers() -> None:
    assert mixing_of("none") is None
    assert mixing_of("mixup") == Mixing("mixup", 0.2)
    assert mixing_of("cutmix") == Mixing("cutmix", 1.0)
    assert mixing_of("mixup", 0.4) == Mixing("mixup", 0.4)
