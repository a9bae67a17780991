from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from limbeck import Teacher
from limbeck.losses import softened_divergence, squared_error, top_k
from limbeck.methods import UniKD
from limbeck.methods._unified import Fusion, Prediction
from limbeck.record import Record
from limbeck.task import MultiLabel, Regression
from tests.methods import slow_unikd as slow
from tests.methods.tapped import changed, cnn, images, state

#: No distribution, so no supp.
MAPS = {"constraint": "features", "supp_weight": 0.0}


def method(dtype: torch.dtype = torch.float64, samples: int = 4, **settings: object) -> UniKD:
    """Two small networks of three stages; the teacher is wider."""
    networks = cnn(3, 4, 4, seed=1).to(dtype), cnn(2, 3, 5, seed=2).to(dtype)
    torch.manual_seed(3)
    made = UniKD(*networks, example=images(samples, dtype=dtype), **settings).to(dtype)
    made.epoch = 2
    return made


def batch(samples: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, object]:
    """A batch with noise."""
    generator = torch.Generator().manual_seed(4)
    one, two = torch.randn(2, samples, 4, generator=generator, dtype=dtype)
    return {**images(samples, dtype=dtype), "noise": {"student": one, "teacher": two}}


def slow_terms(made: UniKD, given: dict[str, object]) -> dict[str, float]:
    """Every term of features and outputs by plain loops."""
    with torch.no_grad():
        said = {"student": made.student_taps(given), "teacher": made.teacher(given)}
    heads, drawn = made.heads, {}
    sides = {
        "student": (heads.student_levels, heads.fusion, heads.prediction),
        "teacher": (heads.teacher_levels, heads.teacher_fusion, heads.teacher_prediction or heads.prediction),
    }
    for side, (levels, fusion, prediction) in sides.items():
        rows = []
        for sample in range(len(given["targets"])):
            values = [said[side][tap.layer][sample].tolist() for tap in levels]
            maps = [value if isinstance(value[0], list) else [[[v]] for v in value] for value in values]
            rows.append(slow_head(maps, fusion, prediction, given["noise"][side][sample].tolist()))
        drawn[side] = [list(part) for part in zip(*rows, strict=True)]
    logits = {side: record.output.tolist() for side, record in said.items()}
    (m_s, v_s, z_s), (m_t, v_t, z_t) = drawn["student"], drawn["teacher"]
    hot, tied = made.settings.temperature, made.settings.feature_temperature
    return {
        "soft": slow.divergence(logits["student"], logits["teacher"], hot),
        "dkd": slow.decoupled(logits["student"], logits["teacher"], given["targets"].tolist(), hot, 1.0, 8.0),
        "feature": slow.divergence(z_s, z_t, tied),
        "gaussian": slow.gaussian(m_s, v_s, m_t, v_t),
        "supp_student": slow.divergence(z_s, logits["student"], tied),
        "supp_teacher": slow.divergence(z_t, logits["teacher"], tied),
    }


def slow_head(
    maps: list, fusion: object, prediction: Prediction, noise: list[float]
) -> tuple[list, list, list]:
    """Mean, log variance and sample of one picture."""
    if isinstance(fusion, Fusion):
        gates = [(gate.weight[:, :, 0, 0].tolist(), gate.bias.tolist()) for gate in fusion.gates]
        reduce = [layer.weight[:, :, 0, 0].tolist() for layer in fusion.reduce]
        one = slow.fused(maps, reduce, gates, fusion.out.weight.tolist(), fusion.sizes)
    elif fusion is not None:
        one = slow.projected(maps[0], fusion.out.weight[:, :, 0, 0].tolist(), fusion.out.bias.tolist())
    else:
        one = maps[-1]
    mean = slow.predicted(one, prediction.mean.weight.tolist(), prediction.mean.bias.tolist())
    logs = slow.predicted(one, prediction.log_variance.weight.tolist(), prediction.log_variance.bias.tolist())
    return mean, logs, slow.sample(mean, logs, noise)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 2.0, "feature_temperature": 1.0},
        {"teacher_feature": "first_stage"},
        {"teacher_feature": "last_stage"},
        {"sizes": [1, 2, 3, (5, 4)], "max_channels": 2},
    ],
    ids=str,
)
def test_every_term_equals_plain_loops(settings: dict[str, object]) -> None:
    given, made = batch(), method(**settings)
    expected, found = slow_terms(made, given), made(given)
    for name in ("soft", "feature", "supp_student", "supp_teacher"):
        assert found.terms[name].item() == pytest.approx(expected[name], rel=1e-9)
    other = method(**settings, constraint="gaussian", logits="dkd")(given)
    assert other.terms["feature"].item() == pytest.approx(expected["gaussian"], rel=1e-9)
    assert other.terms["soft"].item() == pytest.approx(expected["dkd"], rel=1e-9)


def test_the_total_is_the_weighted_sum_with_its_defaults() -> None:
    made, given = method(), batch()
    found = made(given)
    names = ["hard", "soft", "feature", "supp_student", "supp_teacher"]
    assert found.weights == dict.fromkeys(names, 1.0)
    torch.testing.assert_close(found.total, sum(found.terms.values()))
    logits, target = made.student(given["inputs"]), made.teacher(given).output
    torch.testing.assert_close(found.terms["hard"], F.cross_entropy(logits, given["targets"]))
    torch.testing.assert_close(found.terms["soft"], softened_divergence(logits, target, 4.0))
    weighted = method(hard_weight=0.5, logits_weight=2.0, feature_weight=3.0, supp_weight=0.1)(given)
    assert list(weighted.weights.values()) == [0.5, 2.0, 3.0, 0.1, 0.1]
    assert set(method(logits="none", supp_weight=0.0)(given).terms) == {"hard", "feature"}
    assert set(method(logits_weight=0.0, feature_weight=0.0)(given).terms) == {"hard", *names[3:]}


def test_the_levels_are_the_stages_and_what_enters_the_classifiers() -> None:
    made = method()
    paths = ["layer1", "layer2", "layer3", "fc.input"]
    assert made.tapped["student"] == paths
    # A stage of these ends in a ReLU module, so the teacher is read before it.
    assert made.tapped["teacher"] == [*(f"{path}.2.input" for path in paths[:3]), "fc.input"]
    assert made.heads.fusion.sizes == [(1, 1), (2, 2), (4, 4), (8, 8)]
    assert [layer.in_channels for layer in made.heads.fusion.reduce] == [4, 4, 4, 3]
    assert {layer.out_channels for layer in made.heads.fusion.reduce} == {4}
    assert (made.heads.fusion.out.out_channels, made.heads.teacher_fusion.out.out_channels) == (2, 2)
    assert method(teacher_preact=False).tapped["teacher"] == paths
    assert method(student_preact=True).tapped["student"][0] == "layer1.2.input"
    first = method(teacher_feature="first_stage")
    assert first.tapped == made.tapped
    assert first.teacher.paths == ("layer1.2.input",)
    assert method(teacher_feature="first_stage", taps=first.tapped).tapped == first.tapped
    last = method(teacher_feature="last_stage")
    assert last.tapped == {"student": ["layer3"], "teacher": ["layer3"]}
    assert last.heads.teacher_prediction is None


def test_values_before_the_relu_have_another_sign_behind_it() -> None:
    made, given = method(), batch()
    said = made.teacher(given)
    stage = made.teacher.model.layer1(made.teacher.model.stem(given["inputs"]))
    assert said["layer1.2.input"].min() < 0
    torch.testing.assert_close(said["layer1.2.input"].relu(), stage)


def test_a_relu_that_cannot_be_read_before_leaves_the_layer_as_it_is() -> None:
    teacher = cnn(2, 3, 5, seed=2)
    for stage in (teacher.layer1, teacher.layer2, teacher.layer3):
        stage[2].inplace = True
    made = UniKD(cnn(3, 4, 4), teacher, example=images())
    assert made.tapped["teacher"] == ["layer1", "layer2", "layer3", "fc.input"]


def test_targets_move_unless_they_are_detached() -> None:
    given = batch()
    for detach in (False, True):
        only = {"hard_weight": 0.0, "logits": "none", "detach_targets": detach}
        full = method(**only)
        losses = full(given)
        feature = losses.terms["feature"]
        reached = torch.autograd.grad(feature, full.heads.teacher_prediction.mean.weight, allow_unused=True)[
            0
        ]
        assert (reached is None) == detach
        student = method(**only, feature_weight=0.0)
        tied = student(given).terms["supp_student"]
        moved = torch.autograd.grad(tied, student.student.fc.weight, allow_unused=True)[0]
        assert (moved is None) == detach


def test_gaussians_are_detached_as_samples_are() -> None:
    for detach in (False, True):
        made = method(constraint="gaussian", detach_targets=detach)
        feature = made(batch()).terms["feature"]
        logs = made.heads.teacher_prediction.log_variance.weight
        assert (torch.autograd.grad(feature, logs, allow_unused=True)[0] is None) == detach


def test_without_a_distribution_maps_are_compared() -> None:
    given = batch()
    for place in ("first_stage", "last_stage"):
        made = method(teacher_feature=place, **MAPS)
        assert made.heads.prediction is None
        found = made(given)
        assert set(found.terms) == {"hard", "soft", "feature"}
        own = made.heads(made.student_taps(given), made.teacher(given), given, look=True).maps
        torch.testing.assert_close(found.terms["feature"], F.mse_loss(own[0], own[1]))
    small = method(teacher_feature="first_stage", sizes=[1, 2, 4, 4], **MAPS)
    own, target = small.heads(small.student_taps(given), small.teacher(given), given, look=True).maps
    torch.testing.assert_close(small(given).terms["feature"], F.mse_loss(own, target[:, :, ::2, ::2]))


def test_samples_are_means_where_nothing_is_drawn() -> None:
    made, given = method(sample=False), batch()
    assert made.heads.prediction.log_variance is None
    found = made(given)
    said = made.heads(made.student_taps(given), made.teacher(given), given, look=True)
    expected = softened_divergence(said.student.mean, said.teacher.mean, 4.0)
    torch.testing.assert_close(found.terms["feature"], expected)
    del given["noise"]
    assert torch.equal(made(given).total, found.total)


def test_noise_belongs_to_the_samples_and_the_epoch() -> None:
    made, given = method(), images(4, dtype=torch.float64)
    like = torch.empty(4, 4, dtype=torch.float64)
    one = made.noise("student", given, like, 1)
    assert torch.equal(made.noise("student", given, like, 1), one)
    cut = {"index": given["index"][2:]}
    assert torch.equal(made.noise("student", cut, like[2:], 1), one[2:])
    others = [made.noise("teacher", given, like, 1), made.noise("student", given, like, 2)]
    others.append(made.noise("student", {**given, "view": torch.ones(4).long()}, like, 1))
    for other in others:
        assert not torch.equal(other, one)
    many = made.noise("student", {"index": torch.arange(2000)}, torch.empty(2000, 50), 1)
    assert abs(many.mean()) < 0.02
    assert many.std() == pytest.approx(1.0, abs=0.02)
    assert many.abs().max() > 3.5
    assert abs(torch.corrcoef(many.T).fill_diagonal_(0)).max() < 0.15


def test_a_generator_or_torch_draws_where_asked() -> None:
    made, given = method(), images(4, dtype=torch.float64)
    made.noise.generator = torch.Generator().manual_seed(7)
    one, two = made(given).total, made(given).total
    assert not torch.equal(one, two)
    made.noise.generator.manual_seed(7)
    assert torch.equal(made(given).total, one)
    made.noise.generator = None
    del given["index"]
    torch.manual_seed(5)
    three = made(given).total
    torch.manual_seed(5)
    assert torch.equal(made(given).total, three)


def test_student_and_heads_train_and_only_the_student_is_deployed() -> None:
    made, given = method(), batch()
    (stage,) = made.stages()
    (update,) = stage.updates
    assert {id(p) for p in update.parameters()} == {id(p) for p in made.parameters()}
    made.enter(stage)
    before, teacher = state(made), state(made.teacher.model)
    made(given).total.backward()
    torch.optim.SGD(update.parameters(), lr=0.1).step()
    assert changed(before, made) == set(before) - {"noise.seed"}
    assert changed(teacher, made.teacher.model) == set()
    assert {name.split(".")[0] for name in made.state_dict()} == {"student", "heads", "noise"}
    assert set(made.deployable().state_dict()) == set(made.student.state_dict())


def test_gradient_of_the_features_reaches_the_first_stage() -> None:
    made = method(hard_weight=0.0, logits="none")
    made(batch()).terms["feature"].backward()
    assert made.student.layer1[0].weight.grad.abs().max() > 0
    assert made.student.fc.weight.grad is None


def test_initial_weights_are_kaiming_uniform_and_only_gates_have_a_bias() -> None:
    fusion = Fusion([40, 30], 20, 10, [(1, 1), (2, 2)])
    for layer in (*fusion.reduce, fusion.out):
        bound = (3 / layer.weight[0].numel()) ** 0.5  # gain 1 where a is 1
        assert layer.weight.abs().max().item() == pytest.approx(bound, rel=0.02)
        assert layer.bias is None
    assert all(gate.bias is not None and gate.out_channels == 2 for gate in fusion.gates)


def test_the_notes() -> None:
    made, given = method(), batch()
    found = made(given)
    said = made.heads(made.student_taps(given), made.teacher(given), given, look=True)
    z = said.teacher.sample(given["noise"]["teacher"])
    right = (z.argmax(1) == made.teacher(given).output.argmax(1)).float().mean()
    assert found.notes["agreement"] == right
    torch.testing.assert_close(found.notes["variance_student"], said.student.log_variance.exp().mean())
    assert all(not note.requires_grad for note in found.notes.values())


def test_the_ramp_of_decoupled_outputs() -> None:
    made, given = method(logits="dkd", logits_weight=2.0), batch()
    for epoch, weight in ((1, 0.1), (5, 0.5), (20, 2.0), (30, 2.0)):
        made.epoch = epoch
        assert made(given).weights["soft"] == pytest.approx(weight)
    given["targets"] = torch.tensor([0, -1, 2, -1])
    kept = {**given, **{k: given[k][::2] for k in ("inputs", "targets", "index")}}
    kept["noise"] = {side: value[::2] for side, value in given["noise"].items()}
    made.eval()
    torch.testing.assert_close(made(given).terms["soft"], made(kept).terms["soft"])


def test_log_variances_can_be_clamped() -> None:
    made, given = method(clamp_log_variance=True), batch()
    with torch.no_grad():
        made.heads.prediction.log_variance.bias.fill_(500.0)
    found = made(given)
    assert found.notes["variance_student"].item() == pytest.approx(torch.tensor(10.0).exp().item())
    found.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_constant_features_and_dead_stages_have_finite_gradients() -> None:
    made, given = method(), batch()
    with torch.no_grad():
        for network in (made.student.layer1, made.student.layer2, made.teacher.model.layer3):
            for parameter in network.parameters():
                parameter.zero_()
    found = made(given)
    found.total.backward()
    assert found.total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_terms_are_in_single_precision_under_autocast_and_of_half_teachers() -> None:
    made, given = method(torch.float32), batch(dtype=torch.float32)
    exact = made(given)
    made.teacher = Teacher(copy.deepcopy(made.teacher.model).half(), paths=made.tapped["teacher"])
    half = made(given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = made(given)
    for found in (half, mixed):
        assert all(term.dtype == torch.float32 for term in found.terms.values())
        torch.testing.assert_close(found.total, exact.total, rtol=0.1, atol=0.1)
        found.total.backward()


def test_a_method_in_bfloat16_has_losses_in_single_precision() -> None:
    made, given = method(torch.float32).to(torch.bfloat16), batch(dtype=torch.float32)
    made.teacher = Teacher(made.teacher.model.to(torch.bfloat16), paths=made.tapped["teacher"])
    found = made({**given, "inputs": given["inputs"].bfloat16()})
    assert all(term.dtype == torch.float32 and term.isfinite() for term in found.terms.values())
    found.total.backward()


def test_a_batch_of_one_and_one_that_lacks_classes() -> None:
    made = method().eval()  # its own batch norms need more in training
    for samples in (1, 4):
        given = batch(samples)
        found = made({**given, "targets": torch.zeros_like(given["targets"])})
        found.total.backward()
        assert found.total.isfinite()


def test_sums_are_divided_by_the_count_of_the_loop() -> None:
    made, given = method(), batch()
    plain = made(given)
    counted = made({**given, "count": {"samples": 8.0, "targets": 8.0}})
    for name, term in plain.terms.items():
        torch.testing.assert_close(counted.terms[name], term / 2)


@pytest.mark.parametrize(
    ("task", "targets"), [(MultiLabel(4), torch.ones(4, 4)), (Regression(), torch.zeros(4, 4))]
)
def test_outputs_that_are_no_classes_have_vectors_of_some_width(task: object, targets: Tensor) -> None:
    given = {**images(4), "targets": targets}
    made = UniKD(cnn(3, 4), cnn(2, 3), task=task, example=given, supp_weight=0.0, width=7)
    assert made.heads.prediction.mean.out_features == 7
    found = made(given)
    assert set(found.terms) == {"hard", "soft", "feature"}
    torch.testing.assert_close(found.terms["hard"], task.loss(made.student(given["inputs"]), given))
    if task.kind == "values":
        expected = squared_error(made.student(given["inputs"]), made.teacher(given).output)
        torch.testing.assert_close(found.terms["soft"], expected)
    assert made.top_k_temperatures() is None


def test_the_largest_outputs_of_a_teacher_are_enough_without_supp() -> None:
    assert method().top_k_temperatures() is None
    assert method(logits="dkd", supp_weight=0.0).top_k_temperatures() is None
    made, given = method(temperature=2.0, supp_weight=0.0), batch()
    student, teacher = made.student_taps(given), made.teacher(given)
    whole = made.losses(student, teacher, given)
    assert made.top_k_temperatures() == (2.0,)
    kept = Record(top_k(teacher.output, 4, temperatures=(2.0,)), teacher.layers)
    torch.testing.assert_close(made.losses(student, kept, given).terms["soft"], whole.terms["soft"])


def test_the_teacher_stops_early_where_its_output_is_not_read() -> None:
    ran: list[str] = []
    for settings in ({}, {"logits": "none", "supp_weight": 0.0, "teacher_feature": "first_stage"}):
        made = method(**settings)
        made.teacher.model.fc.register_forward_pre_hook(lambda module, inputs: ran.append("fc"))
        assert made(batch()).total.isfinite()
    assert ran == ["fc"]


def test_labels_are_not_needed_without_a_hard_weight() -> None:
    given = batch()
    del given["targets"]
    assert "hard" not in method(hard_weight=0.0)(given).terms
