from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limbeck.data.dataset import ArrayDataset, Dataset
from limbeck.data.images import LazyImageDataset
from limbeck.data.loader import Loader, batch_sizes
from limbeck.data.views import Views, split_view
from limbeck.errors import RequestError, RunError


def numbered(number: int) -> Dataset:
    pixels = torch.arange(number, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return ArrayDataset(pixels, torch.arange(number) % 2)


def ids(loader: Loader) -> list[list[int]]:
    """Identities of each batch, over its micro-batches."""
    return [[i for micro in micros for i in micro["index"].tolist()] for micros in loader]


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [i for batch in batches for i in batch]


def test_every_sample_once_in_an_order_of_seed_stage_and_epoch() -> None:
    data = numbered(40)
    first = ids(Loader(data, 8, seed=0, stage=0, epoch=1))
    assert sorted(flat(first)) == list(range(40))
    assert [len(batch) for batch in first] == [8] * 5
    assert first == ids(Loader(data, 8, seed=0, stage=0, epoch=1))
    others = [(1, 0, 1), (0, 1, 1), (0, 0, 2)]
    assert all(first != ids(Loader(data, 8, seed=s, stage=g, epoch=e)) for s, g, e in others)
    assert ids(Loader(data, 16, seed=0, shuffle=False))[0] == list(range(16))


def test_iterating_again_gives_the_same() -> None:
    loader = Loader(numbered(20), 6, seed=0)
    assert ids(loader) == ids(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_exactly_the_batches_that_are_left(workers: int) -> None:
    data = numbered(32)
    whole = ids(Loader(data, 4, seed=3, epoch=5))
    for done in range(9):
        rest = Loader(data, 4, seed=3, epoch=5, start_batch=done, num_workers=workers)
        assert len(rest) == 8 - done
        assert rest.num_batches == 8
        assert ids(rest) == whole[done:]


@pytest.mark.parametrize("number", [64, 61, 51])
@pytest.mark.parametrize("micro_batches", [1, 2, 3])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_and_micro_batches_cut_the_same_batches(number: int, micro_batches: int, world: int) -> None:
    data = numbered(number)
    whole = ids(Loader(data, 12, seed=0))
    ranks = [
        Loader(data, 12, seed=0, rank=rank, world=world, micro_batches=micro_batches) for rank in range(world)
    ]
    for step, pieces in enumerate(zip(*ranks, strict=True)):
        slices = [micro["index"].tolist() for micros in pieces for micro in micros]
        assert flat(slices) == whole[step]
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
        assert min(map(len, slices)) >= 1


def test_several_small_rests() -> None:
    assert batch_sizes(65, 64) == [65]  # the odd one would have no batch statistics
    assert batch_sizes(128 * 3 + 15, 128) == [128, 128, 143]
    assert batch_sizes(128 * 3 + 16, 128) == [128, 128, 128, 16]
    assert batch_sizes(10, 64) == [10]
    assert batch_sizes(10, 4, world=3) == [4, 6]
    assert batch_sizes(0, 4) == []
    for total in range(1, 200):
        for batch_size in (1, 3, 16, 64):
            assert sum(batch_sizes(total, batch_size)) == total
            assert sum(batch_sizes(total, batch_size, drop_last=True)) == total // batch_size * batch_size


def test_a_merged_rest_is_read_whole() -> None:
    batches = ids(Loader(numbered(65), 64, seed=0))
    assert len(batches) == 1
    assert sorted(batches[0]) == list(range(65))
    loader = Loader(numbered(33), 16, seed=0, micro_batches=4)
    assert [[len(micro["index"]) for micro in micros] for micros in loader] == [[4] * 4, [4, 4, 4, 5]]


def test_a_rest_smaller_than_the_micro_batches_has_no_empty_one() -> None:
    loader = Loader(numbered(18), 16, seed=0, micro_batches=4)
    assert [[len(micro["index"]) for micro in micros] for micros in loader] == [[4] * 4, [1, 1]]


def test_only_whole_batches() -> None:
    batches = ids(Loader(numbered(30), 8, seed=0, drop_last=True))
    assert [len(batch) for batch in batches] == [8, 8, 8]
    assert Loader(numbered(5), 8, seed=0, drop_last=True).num_batches == 0


def test_a_longer_epoch_is_several_passes() -> None:
    data = numbered(10)
    loader = Loader(data, 8, seed=0, length=32)
    batches = ids(loader)
    assert [len(batch) for batch in batches] == [8, 8, 8, 8]
    passes = flat(batches)
    assert all(sorted(passes[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    assert passes[:10] != passes[10:20]
    assert len(set(passes[30:])) == 2
    assert ids(Loader(data, 8, seed=0, length=32, start_batch=2)) == batches[2:]
    assert sorted(flat(ids(Loader(data, 8, seed=0, length=4)))) == sorted(passes[:4])


def test_passes_may_have_views_of_their_own() -> None:
    data = numbered(10)
    loader = Loader(data, 8, seed=0, length=24, view=[5, 6])
    seen = torch.cat([micro["view"] for micros in loader for micro in micros])
    assert seen.tolist() == [5] * 10 + [6] * 10 + [5] * 4


def test_views_are_those_of_the_data_set() -> None:
    data = numbered(20).augment(Views(0, ["crop"]))
    for micros in Loader(data, 8, seed=0, view=3, micro_batches=2):
        for micro in micros:
            assert torch.equal(micro["inputs"], data.batch(micro["index"], 3)["inputs"])


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("micro_batches", [1, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_several_views_of_a_sample_follow_each_other(world: int, micro_batches: int, workers: int) -> None:
    data = numbered(20).augment(Views(0, ["crop", "rotate"])).with_columns({"extra": torch.rand(20)})
    settings: dict[str, Any] = {"seed": 0, "epoch": 2, "length": 32}
    plain = Loader(data, 8, view=[3, 4], **settings)
    cut = {"world": world, "micro_batches": micro_batches, "num_workers": workers}
    ranks = [Loader(data, 8, view=[3, 4], places=4, rank=r, **cut, **settings) for r in range(world)]
    assert all(loader.num_batches == plain.num_batches for loader in ranks)
    for (whole,), pieces in zip(plain, zip(*ranks, strict=True), strict=True):
        micros = [micro for piece in pieces for micro in piece]
        assert len(micros) == world * micro_batches
        assert all(len(micro["index"]) % 4 == 0 for micro in micros)
        rows = {key: torch.cat([micro[key] for micro in micros]) for key in micros[0]}
        samples = len(whole["index"])
        assert torch.equal(rows["index"], whole["index"].repeat_interleave(4))
        assert torch.equal(rows["extra"], whole["extra"].repeat_interleave(4))
        assert torch.equal(rows["targets"], whole["targets"].repeat_interleave(4))
        views, places = split_view(rows["view"])
        assert torch.equal(views, whole["view"].repeat_interleave(4))
        assert places.tolist() == [0, 1, 2, 3] * samples
        assert torch.equal(rows["inputs"], data.batch(rows["index"], rows["view"])["inputs"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_equal_batches_in_equal_order(workers: int) -> None:
    data = numbered(50).augment(Views(0, ["crop", "flip"])).with_columns({"extra": torch.rand(50)})
    here = list(Loader(data, 8, seed=0, epoch=2, view=2, micro_batches=2))
    before = torch.get_rng_state()
    there = list(Loader(data, 8, seed=0, epoch=2, view=2, micro_batches=2, num_workers=workers))
    assert torch.equal(before, torch.get_rng_state())
    assert len(here) == len(there)
    for one, other in zip(here, there, strict=True):
        for micro, its_twin in zip(one, other, strict=True):
            assert sorted(micro) == sorted(its_twin)
            assert all(torch.equal(micro[key], its_twin[key]) for key in micro)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_worker_arrives_as_it_is(tmp_path: Path, workers: int) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(8)]
    for path in paths:
        Image.new("L", (4, 4)).save(path)
    paths[5].write_bytes(b"no picture")
    loader = Loader(LazyImageDataset(paths, channels=1), 4, seed=0, shuffle=False, num_workers=workers)
    batches = iter(loader)
    next(batches)
    with pytest.raises(RunError) as caught:
        next(batches)
    assert caught.value.where == str(paths[5])
    assert "Traceback" not in str(caught.value)


def test_positions_say_the_whole_batch() -> None:
    loader = Loader(numbered(20), 6, seed=0, rank=1, world=2)
    both = [Loader(numbered(20), 6, seed=0, rank=rank, world=2) for rank in range(2)]
    for step in range(loader.num_batches):
        assert loader.positions(step).tolist() == flat(ids(each)[step] for each in both)


@pytest.mark.parametrize(
    ("number", "settings"),
    [
        (0, {}),
        (8, {"batch_size": 0}),
        (8, {"batch_size": 2, "world": 3}),
        (2, {"world": 3}),
        (8, {"rank": 2, "world": 2}),
    ],
)
def test_impossible_settings_are_refused(number: int, settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Loader(numbered(number), settings.pop("batch_size", 4), seed=0, **settings)


def test_errors_survive_the_way_between_processes() -> None:
    error = RunError("broken", where="a.jpg", fix="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error)
    assert again.where == "a.jpg"
