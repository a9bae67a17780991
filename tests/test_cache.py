"""The cached teacher answers as the live one does, for whatever was stored, and only for that."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck import CachedTeacher, Teacher
from limbeck.cache import Store
from limbeck.data.dataset import ArrayDataset
from limbeck.data.views import Views
from limbeck.errors import RequestError, RunError
from limbeck.losses import TopK
from limbeck.methods import KD
from tests.cached import augmented, cached, files, small_shards, teacher_network
from tests.engine.tiny import cnn, pictures


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_shards(monkeypatch)


def live():
    return Teacher(teacher_network(), paths=["2"])


@pytest.mark.parametrize("view", [0, 1, 7])
def test_answers_equal_live_ones_bit_for_bit_in_any_order(tmp_path, view):
    data, teacher = augmented(), cached(tmp_path / "c")
    order = torch.randperm(80)
    for part in order.split(20):
        batch = data.batch(part, view)
        stored, now = teacher(batch), live()(batch)
        assert torch.equal(stored.output, now.output)
        assert torch.equal(stored["2"], now["2"])


def test_one_batch_may_hold_several_views_of_a_sample(tmp_path):
    data, teacher = augmented(), cached(tmp_path / "c")
    positions = torch.arange(20).repeat_interleave(2)
    batch = data.batch(positions, torch.tensor([1, 2]).repeat(20))
    assert torch.equal(teacher(batch).output, live()(batch).output)


def test_a_small_batch_differs_by_rounding_alone(tmp_path):
    data, teacher = augmented(), cached(tmp_path / "c")
    batch = data.batch([3, 5, 8], 2)
    now = live()(batch).output
    assert (teacher(batch).output - now).abs().max() <= 1e-5 * now.abs().max()


def test_the_first_answer_writes_its_view_and_no_other(tmp_path):
    data, teacher = augmented(), cached(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    teacher(data.batch([1, 2], 3))
    assert teacher.missing([3]) == 0
    assert teacher.missing([0, 1]) == 160


def test_a_second_teacher_reads_what_the_first_one_wrote(tmp_path):
    data = augmented()
    cached(tmp_path / "c").fill([1])
    before = files(tmp_path / "c")

    teacher = cached(tmp_path / "c", write=False)
    batch = data.batch(torch.arange(40), 1)
    assert torch.equal(teacher(batch).output, live()(batch).output)
    assert files(tmp_path / "c") == before


def test_training_with_and_without_the_cache_gives_the_same_bits(tmp_path):
    weights = []
    for teacher in (Teacher(teacher_network()), cached(tmp_path / "c", paths=())):
        method, data = KD(cnn(), teacher), augmented()
        optimizer = torch.optim.SGD(method.parameters(), 0.1)
        torch.manual_seed(3)
        for epoch in range(3):
            for part in torch.randperm(80).split(16):
                method(data.batch(part, 1 + epoch % 2)).total.backward()
                optimizer.step()
                optimizer.zero_grad()
        weights.append(torch.cat([p.detach().flatten() for p in method.parameters()]))
    assert torch.equal(*weights)


def test_the_record_belongs_to_the_very_pixels_that_the_student_sees(tmp_path):
    """A teacher whose answer is the picture itself: the stored answer is what the student gets to see."""

    class Mirror(nn.Module):
        def forward(self, pixels):
            return pixels.flatten(1)

    data = augmented()
    teacher = CachedTeacher(Mirror(), tmp_path / "c", data)
    for view in (0, 1, 2, 5):
        batch = data.batch(torch.randperm(80)[:30], view)
        assert torch.equal(teacher(batch).output, batch["inputs"].flatten(1))


def test_subsets_and_relabelled_sets_share_the_cache(tmp_path):
    data, teacher = augmented(), cached(tmp_path / "c")
    part = data.subset(torch.arange(79, 30, -1)).with_targets(torch.full((49,), -1))
    batch = part.batch(torch.arange(20), 1)
    assert torch.equal(teacher(batch).output, live()(batch).output)


def test_identities_need_not_be_positions(tmp_path):
    pixels = pictures(40)
    inputs = (pixels.batch(torch.arange(40))["inputs"] * 255).round().byte()
    data = ArrayDataset(inputs, pixels.targets(), index=torch.arange(40) * 7 + 3)
    teacher = cached(tmp_path / "c", data)
    batch = data.batch(torch.randperm(40)[:20])
    assert torch.equal(teacher(batch).output, live()(batch).output)


def test_float16_halves_the_answer_and_rounds_it(tmp_path):
    data = augmented()
    half, whole = cached(tmp_path / "h", store=Store("float16")), cached(tmp_path / "w")
    assert half.bytes_of([0]) - 80 * 4 == (whole.bytes_of([0]) - 80 * 4) // 2
    batch = data.batch(torch.arange(20), 1)
    assert half(batch).output.dtype == torch.float32
    assert torch.allclose(half(batch).output, live()(batch).output, rtol=1e-3, atol=1e-5)


def test_what_does_not_fit_float16_is_refused(tmp_path):
    network = teacher_network()
    network[8].bias.data[0] = 1e5
    with pytest.raises(RunError, match=r"output for sample 0 does not fit float16"):
        cached(tmp_path / "c", network=network, store=Store("float16")).fill([0])


def test_answers_that_are_not_finite_are_refused(tmp_path):
    network = teacher_network()
    network[8].bias.data[0] = float("nan")
    with pytest.raises(RunError, match="output for sample 0 is not finite"):
        cached(tmp_path / "c", network=network).fill([0])


def test_top_k_of_all_classes_equals_dense_answers(tmp_path):
    data = augmented()
    store = Store(top_k=3, temperatures=(1.0, 4.0))
    teacher = cached(tmp_path / "c", paths=(), store=store)
    batch = data.batch(torch.arange(32), 1)
    stored, now = teacher(batch).output, Teacher(teacher_network())(batch).output
    assert isinstance(stored, TopK)
    dense = torch.zeros(32, 3).scatter(1, stored.index, stored.value)
    assert torch.equal(dense, now)


def test_top_k_keeps_the_mass_of_the_rest_and_the_label(tmp_path):
    data = augmented()
    teacher = cached(tmp_path / "c", paths=(), store=Store(top_k=1, temperatures=(4.0,)))
    batch = data.batch(torch.arange(32), 1)
    stored, now = teacher(batch).output, Teacher(teacher_network())(batch).output
    assert torch.equal(stored.index[:, 0], batch["targets"])
    others = torch.ones(32, 3, dtype=torch.bool).scatter(1, stored.index, False)
    rest = (now[others].view(32, 2) / 4.0).logsumexp(1)
    assert torch.allclose(stored.log_rest_at(4.0), rest)


def test_a_thousand_classes_take_at_most_300_bytes_a_sample(tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 1000))
    store = Store("float16", top_k=64, temperatures=(1.0, 4.0))
    teacher = CachedTeacher(network, tmp_path / "c", pictures(20), store=store)
    assert teacher.bytes_of([0]) <= 20 * 300


# -- what it is for ------------------------------------------------------------------------------------


def changed_statistics():
    network = teacher_network()
    network[1].running_var.add_(1e-3)
    return network


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"network": teacher_network(2)}, "written for other weights of the teacher"),
        ({"network": changed_statistics()}, "written for other weights of the teacher"),
        (
            {"network": nn.Sequential(*teacher_network(), nn.Identity())},
            "another structure of the teacher\n",
        ),
        ({"paths": ["0"]}, r"other layers; it holds the layers \['2'\], needed \['0'\]"),
        ({"data": augmented(70)}, r"number of samples and other data; it holds 80 samples, the data"),
        ({"data": augmented(80, seed=4)}, "written for other data"),
        ({"data": augmented(names=("flip",))}, "another augmentation"),
        ({"data": augmented().subset(torch.arange(79, -1, -1))}, "other data"),
        ({"store": Store("float16")}, "another store"),
    ],
    ids=["weights", "statistics", "structure", "layers", "length", "data", "views", "order", "store"],
)
def test_a_cache_for_something_else_is_refused_by_name(tmp_path, given, said):
    cached(tmp_path / "c").fill([0])
    before = files(tmp_path / "c")
    other = cached(tmp_path / "c", **given)
    with pytest.raises(RequestError, match=said):
        other.fill([0])
    assert files(tmp_path / "c") == before


def test_other_preprocessing_is_named(tmp_path):
    from limbeck.models.preprocessing import Preprocessed, Preprocessing

    def network(mean):
        preprocessing = Preprocessing("image", 3, None, (mean,) * 3, (0.5,) * 3)
        return Preprocessed(teacher_network(), preprocessing)

    cached(tmp_path / "c", network=network(0.5)).fill([0])
    with pytest.raises(RequestError, match="another preprocessing of the teacher\n"):
        cached(tmp_path / "c", network=network(0.4)).fill([0])


def test_code_that_answers_differently_is_found_out(tmp_path):
    class Scaled(nn.Module):
        factor = 1.0

        def __init__(self):
            super().__init__()
            self.body = teacher_network()

        def forward(self, pixels):
            return self.body(pixels) * self.factor

    cached(tmp_path / "c", network=Scaled(), paths=()).fill([0])
    other = Scaled()
    other.factor = 2.0
    with pytest.raises(RequestError, match="the teacher answers differently now"):
        cached(tmp_path / "c", network=other, paths=()).fill([0])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("mine")
    with pytest.raises(RequestError, match="is no teacher cache"):
        cached(tmp_path / "c").fill([0])
    assert files(tmp_path / "c") == {"notes.txt": b"mine"}


# -- bad requests --------------------------------------------------------------------------------------


def test_a_batch_without_index_is_refused(tmp_path):
    batch = augmented().batch([0, 1], 1)
    del batch["index"]
    with pytest.raises(RequestError, match="this batch has no index"):
        cached(tmp_path / "c")(batch)


def test_augmented_data_need_the_view(tmp_path):
    batch = augmented().batch([0, 1], 1)
    del batch["view"]
    with pytest.raises(RequestError, match="has no view"):
        cached(tmp_path / "c")(batch)


def test_an_index_beyond_the_end_is_refused(tmp_path):
    batch = augmented().batch([0, 1], 1)
    batch["index"] = torch.tensor([0, 80])
    with pytest.raises(RequestError, match=r"sample 80 is not in the data .* 80 samples, 0 to 79"):
        cached(tmp_path / "c")(batch)


def test_inputs_augmented_elsewhere_are_found_out(tmp_path):
    batch = augmented().batch(torch.arange(20), 1)
    batch["inputs"] = batch["inputs"].flip(3)
    with pytest.raises(RequestError, match="augmented or normalised after"):
        cached(tmp_path / "c")(batch)


def test_mixed_samples_have_no_stored_answer(tmp_path):
    batch = augmented().batch(torch.arange(20), 1)
    batch["view"] = torch.full((20,), -1)
    with pytest.raises(RequestError, match="mixes samples"):
        cached(tmp_path / "c")(batch)


def test_what_is_not_stored_is_refused_where_nothing_may_be_written(tmp_path):
    data = augmented()
    with pytest.raises(RequestError, match="there is no cache"):
        cached(tmp_path / "c", write=False)(data.batch([0], 1))
    cached(tmp_path / "c").fill([1])
    with pytest.raises(RequestError, match="does not hold all of view 2"):
        cached(tmp_path / "c", write=False)(data.batch([0], 2))


def test_layers_that_are_not_stored_cannot_be_read(tmp_path):
    teacher = cached(tmp_path / "c")
    with pytest.raises(RequestError, match=r"stores the layers \['2'\], and '4' is asked for"):
        teacher.reading(["2", "4"])
    assert teacher.reading([]).paths == ()
    assert cached(tmp_path / "d", paths=()).reading(["4"]).paths == ("4",)


def test_a_teacher_that_draws_is_refused(tmp_path):
    class Noisy(nn.Module):
        def forward(self, pixels):
            return nn.functional.dropout(pixels.flatten(1)[:, :3], 0.5, training=True)

    with pytest.raises(RequestError, match="random"):
        CachedTeacher(Noisy(), tmp_path / "c", augmented()).fill([0])
    assert not (tmp_path / "c").exists()


def test_outputs_that_are_no_tensor_are_refused(tmp_path):
    class Pair(nn.Module):
        def forward(self, pixels):
            return {"logits": [pixels]}

    with pytest.raises(RequestError, match="a cache holds floating tensors"):
        CachedTeacher(Pair(), tmp_path / "c", augmented()).fill([0])


def test_a_training_mode_is_left_before_answers_are_stored(tmp_path):
    network = teacher_network()
    teacher = cached(tmp_path / "c", network=network)
    network.train()
    batch = augmented().batch(torch.arange(20), 1)
    assert torch.equal(teacher(batch).output, live()(batch).output)
    assert not network.training


def test_views_cycle_in_any_seed_of_the_loader(tmp_path):
    """Sampler and seed of the run may change; answers belong to (sample, view) alone."""
    data = pictures(48).augment(Views(5, ["crop"]))
    teacher = cached(tmp_path / "c", data)
    for seed in range(3):
        torch.manual_seed(seed)
        batch = data.batch(torch.randperm(48)[:24], 1 + seed)
        assert torch.equal(teacher(batch).output, live()(batch).output)
