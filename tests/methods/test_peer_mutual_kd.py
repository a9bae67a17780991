from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.methods.peer_mutual_kd import PeerMutualKD
from limbeck.statistics import keep_statistics
from limbeck.teacher import Teacher
from tests.golden.checker import check_file
from tests.methods.cohort import batch, net, reference, same, weights

GOLDEN = sorted((Path(__file__).parent.parent / "golden").glob("peer_mutual_kd_*.npz"))
ORDERS = ("simultaneous", "sequential", "own_batch")


def cohort(number: int = 2, *, norm: bool = False, teacher: bool = True, **settings) -> PeerMutualKD:
    students = [net(10 + m, 4 + m, norm=norm) for m in range(number)]
    return PeerMutualKD(students, net(1, 8, norm=norm) if teacher else None, **settings)


def optimizers_of(method, make=torch.optim.SGD, **options):
    (stage,) = method.stages()
    method.enter(stage)
    return {update.name: make(update.parameters(), lr=0.2, **options) for update in stage.updates}


def train(method, batches, make=torch.optim.SGD, **options):
    """A loop of one's own: every update on the same batch, or each on its own next one."""
    optimizers = optimizers_of(method, make, **options)
    (stage,) = method.stages()
    drawn = iter(batches)
    for current in drawn:
        for number, update in enumerate(stage.updates):
            if stage.own_batches and number:
                current = next(drawn)
            method(current, update.name).total.backward()
            optimizers[update.name].step()
            optimizers[update.name].zero_grad()
    return method


# -- values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_values(path, dtype):
    outcome = check_file(path, dtype=dtype)
    assert outcome.state == "passed", outcome.text


def test_there_are_golden_values():
    assert len(GOLDEN) == 4


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("peer", ["pairs", "ensemble", "js"])
@pytest.mark.parametrize("number", [2, 4])
def test_terms_equal_a_slow_reference(number, peer, reduction):
    settings = {"temperature": 3.0, "peer_temperature": 1.7, "peer": peer, "peer_reduction": reduction}
    method = cohort(number, order="simultaneous", ce_weight=0.5, kd_weight=0.7, ml_weight=0.3, **settings)
    given = batch(unlabelled=2)
    losses = method(given)
    with torch.no_grad():
        outputs = {name: network(given["inputs"]) for name, network in method._cohort().items()}
    total = losses.terms["teacher.cross_entropy"].item()
    for name, terms in reference(outputs, given["targets"], settings).items():
        for term, value in terms.items():
            assert losses.terms[f"{name}.{term}"].item() == pytest.approx(value, abs=1e-12)
        total += 0.5 * terms["cross_entropy"] + 0.7 * terms["teacher"] + 0.3 * terms["peers"]
    assert losses.total.item() == pytest.approx(total, abs=1e-12)


def test_gradient_of_the_teacher_and_peer_terms():
    method = cohort(3, order="simultaneous", temperature=2.5, peer_temperature=1.5)
    torch.manual_seed(0)
    outputs = {name: torch.randn(6, 4).double().requires_grad_() for name in method._cohort()}
    losses = method.network_losses("student1", outputs, batch())
    own = outputs["student1"]
    for term, hot, targets in (("teacher", 2.5, ["teacher"]), ("peers", 1.5, ["student0", "student2"])):
        (found,) = torch.autograd.grad(losses.terms[f"student1.{term}"], own, retain_graph=True)
        each = [hot / 6 * (own / hot).softmax(1).sub((outputs[name] / hot).softmax(1)) for name in targets]
        torch.testing.assert_close(found, torch.stack(each).mean(0))
    losses.total.backward()
    assert all(value.grad is None for name, value in outputs.items() if name != "student1")


def test_without_labels_only_the_divergences_remain():
    method = cohort(order="simultaneous")
    losses = method(batch(unlabelled=6))
    for name in ("teacher", "student0", "student1"):
        assert losses.terms[f"{name}.cross_entropy"].item() == 0
    assert losses.terms["student0.teacher"].item() > 0
    losses.total.backward()
    assert all(parameter.grad.eq(0).all() for parameter in method.trained_teacher.parameters())


def test_independent_kd_ml_and_both_are_one_path_with_weights():
    given = batch()
    full = cohort(order="simultaneous")(given).terms
    for settings, kept in (
        ({"kd_weight": 0.0, "ml_weight": 0.0, "teacher": False}, {"cross_entropy"}),
        ({"ml_weight": 0.0}, {"cross_entropy", "teacher"}),
        ({"kd_weight": 0.0, "teacher": False}, {"cross_entropy", "peers"}),
        ({}, {"cross_entropy", "teacher", "peers"}),
    ):
        terms = cohort(order="simultaneous", **settings)(given).terms
        assert {name.partition(".")[2] for name in terms if name.startswith("student")} == kept
        assert all(torch.equal(full[name], value) for name, value in terms.items())


def test_equal_peers_give_no_term_and_no_gradient():
    method = cohort(order="simultaneous")
    logits = torch.randn(6, 4, dtype=torch.float64)
    outputs = {"teacher": logits, "student0": logits.clone().requires_grad_(), "student1": logits}
    losses = method.network_losses("student0", outputs, batch())
    assert method.card.minimum["student0.peers"] == 0
    for term in ("peers", "teacher"):
        assert losses.terms[f"student0.{term}"].item() == 0
        (gradient,) = torch.autograd.grad(
            losses.terms[f"student0.{term}"], outputs["student0"], retain_graph=True
        )
        assert gradient.abs().max() < 1e-16


def test_two_students_do_not_depend_on_the_reduction():
    mean, summed = (cohort(order="simultaneous", peer_reduction=each)(batch()) for each in ("mean", "sum"))
    assert torch.equal(mean.total, summed.total)


def test_the_official_divergence_saturates_and_ours_does_not():
    outputs = {
        "student0": torch.tensor([[80.0, -80.0]], dtype=torch.float64, requires_grad=True),
        "student1": torch.tensor([[-80.0, 80.0]], dtype=torch.float64),
    }
    for eps, value, slope in ((1e-8, 18.4207, 0.0), (0.0, 160.0, 1.0)):
        method = cohort(teacher=False, kd_weight=0.0, ce_weight=0.0, legacy_eps=eps)
        term = method.network_losses("student0", outputs, {"targets": torch.tensor([0])}).total
        (gradient,) = torch.autograd.grad(term, outputs["student0"])
        assert term.item() == pytest.approx(value, abs=1e-3)
        assert gradient.abs().max().item() == pytest.approx(slope, abs=1e-9)


def test_warm_up_counts_epochs_done():
    method = cohort(order="simultaneous", kd_warmup=4, kd_weight=2.0)
    with pytest.raises(RequestError, match=r"method.epoch = "):
        method(batch())
    for epoch, weight in ((1, 0.0), (2, 0.5), (5, 2.0), (9, 2.0)):
        method.epoch = epoch
        assert method(batch()).weights["student1.teacher"] == weight


def test_a_teacher_that_learns_from_its_students():
    method, given = (
        cohort(order="simultaneous", teacher_learns=True, ml_weight=0.6, peer_temperature=2.0),
        batch(),
    )
    losses = method(given)
    with torch.no_grad():
        teacher, *students = (network(given["inputs"]) for network in method._cohort().values())
        each = [
            nn.functional.kl_div(teacher.log_softmax(1), s.softmax(1), reduction="batchmean")
            for s in students
        ]
    torch.testing.assert_close(losses.terms["teacher.peers"].detach(), torch.stack(each).mean())
    assert losses.weights["teacher.peers"] == 0.6
    assert set(cohort(teacher_learns=True)(given, "teacher").terms) == {
        "teacher.cross_entropy",
        "teacher.peers",
    }


def test_pieces_of_a_batch_add_up_to_the_whole():
    whole, method = batch(samples=9, unlabelled=4), cohort(order="simultaneous")
    count = {"samples": 3.0, "targets": 5 / 3}
    pieces = [{name: value[i : i + 3] for name, value in whole.items()} for i in (0, 3, 6)]
    cut = sum(method({**piece, "count": count}).total for piece in pieces) / 3
    torch.testing.assert_close(cut, method(whole).total)


# -- updates -----------------------------------------------------------------------------------------


def test_updates_and_stages_of_each_order():
    names = ["teacher", "student0", "student1"]
    for order in ORDERS:
        (stage,) = cohort(order=order).stages()
        assert [update.name for update in stage.updates] == (["cohort"] if order == "simultaneous" else names)
        assert [group for update in stage.updates for group in update.trains] == names
        assert stage.own_batches == (order == "own_batch")
        parameters = [id(p) for update in stage.updates for p in update.parameters()]
        assert len(parameters) == len(set(parameters)) == len(list(cohort(order=order).parameters()))


@pytest.mark.parametrize("order", ["sequential", "own_batch"])
@pytest.mark.parametrize("updated", ["teacher", "student0", "student1", "student2"])
def test_an_update_changes_one_network_alone(order, updated):
    method = cohort(3, norm=True, order=order)
    optimizers = optimizers_of(method, momentum=0.9, weight_decay=0.1)
    for name in optimizers:  # momentum everywhere, so a stray step would show
        method(batch(1), name).total.backward()
        optimizers[name].step()
        optimizers[name].zero_grad()
    before = {name: weights(network) for name, network in method._cohort().items()}
    method(batch(2), updated).total.backward()
    gradients = {name: [p.grad for p in network.parameters()] for name, network in method._cohort().items()}
    optimizers[updated].step()
    for name, network in method._cohort().items():
        assert same(before[name], weights(network)) == (name != updated)
        assert all((gradient is None) == (name != updated) for gradient in gradients[name])


@pytest.mark.parametrize("order", ORDERS)
def test_running_statistics_move_once_a_step_and_targets_use_those_of_the_batch(order):
    method = cohort(norm=True, order=order)
    train(method, [batch(seed) for seed in range(6)])
    for network in method._cohort().values():
        assert network[1].num_batches_tracked == (2 if order == "own_batch" else 6)
    given = batch(7)
    with torch.no_grad(), keep_statistics(method):
        target, own = method.students[1](given["inputs"]), method.students[0](given["inputs"])
    expected = nn.functional.kl_div(own.log_softmax(1), target.softmax(1), reduction="batchmean")
    losses = method(given, "cohort" if order == "simultaneous" else "student0")
    torch.testing.assert_close(losses.terms["student0.peers"].detach(), expected)


@pytest.mark.parametrize("order", ORDERS)
def test_an_online_teacher_gives_its_targets_in_train_mode(order):
    method = cohort(norm=True, order=order)
    method.enter(next(iter(method.stages())))
    given = batch(7)
    with torch.no_grad(), keep_statistics(method):
        teacher, own = (net(given["inputs"]) / 3 for net in (method.trained_teacher, method.students[0]))
    expected = 9 * nn.functional.kl_div(own.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    losses = method(given, "cohort" if order == "simultaneous" else "student0")
    torch.testing.assert_close(losses.terms["student0.teacher"].detach(), expected)
    assert method.trained_teacher.training


def test_dropout_of_targets_is_drawn_anew_for_every_student():
    students = [net(10 + m, 4 + m, dropout=0.5) for m in range(3)]
    method, asked = PeerMutualKD(students, net(1, 8, dropout=0.5)), []
    students[0].register_forward_hook(lambda module, inputs, output: asked.append(output))
    method.enter(next(iter(method.stages())))
    for update in ("student1", "student2"):
        method(batch(), update)
    assert len(asked) == 2
    assert not torch.equal(*asked)
    assert not any(output.requires_grad for output in asked)  # a target needs no graph


def test_sequential_targets_are_those_of_networks_that_have_stepped():
    method, given = cohort(), batch()
    optimizers = optimizers_of(method)
    stale = method(given, "student0").terms["student0.teacher"].item()
    method(given, "teacher").total.backward()
    optimizers["teacher"].step()
    fresh = method(given, "student0").terms["student0.teacher"].item()
    with torch.no_grad():
        teacher, own = method.trained_teacher(given["inputs"]) / 3, method.students[0](given["inputs"]) / 3
    expected = 9 * nn.functional.kl_div(own.log_softmax(1), teacher.softmax(1), reduction="batchmean")
    assert fresh == pytest.approx(expected.item())
    assert fresh != stale


def test_one_loss_of_all_reaches_each_network_as_its_own_would():
    method, given = cohort(3, order="simultaneous"), batch()
    method(given).total.backward()
    joint = [p.grad for p in method.parameters()]
    outputs = {name: network(given["inputs"]) for name, network in method._cohort().items()}
    for name, network in method._cohort().items():
        alone = torch.autograd.grad(
            method.network_losses(name, outputs, given).total, list(network.parameters()), retain_graph=True
        )
        for parameter, gradient in zip(network.parameters(), alone, strict=True):
            torch.testing.assert_close(
                joint[[id(p) for p in method.parameters()].index(id(parameter))], gradient
            )


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW], ids=lambda make: make.__name__)
def test_one_optimizer_with_a_group_a_network_equals_one_each_bit_for_bit(make):
    options = {"momentum": 0.9, "nesterov": True} if make is torch.optim.SGD else {}
    batches = [batch(seed) for seed in range(5)]
    joint = train(cohort(order="simultaneous"), batches, make, **options)
    method = cohort(order="simultaneous")
    optimizers = [make(network.parameters(), lr=0.2, **options) for network in method._cohort().values()]
    for given in batches:
        method(given).total.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert same(weights(joint), weights(method))


def test_order_of_students_matters_in_sequential_alone():
    def trained(order, permutation):
        students = [net(20 + m, 4 + m) for m in range(3)]
        method = PeerMutualKD([students[m] for m in permutation], net(1, 8), order=order)
        train(method, [batch(seed) for seed in range(4)])
        return students

    for order in ("simultaneous", "sequential"):
        one, other = trained(order, (0, 1, 2)), trained(order, (2, 0, 1))
        close = [
            all(torch.allclose(p, q, atol=1e-12) for p, q in zip(a.parameters(), b.parameters(), strict=True))
            for a, b in zip(one, other, strict=True)
        ]
        assert all(close) == (order == "simultaneous")


def test_a_frozen_teacher_stays_out_and_unchanged():
    network = net(1, 8, norm=True)
    before = weights(network)
    method = PeerMutualKD([net(2), net(3)], network, teacher_mode="frozen", order="sequential")
    assert "teacher" not in method.networks()
    own = {id(p) for p in method.parameters()}
    assert not own & {id(p) for p in network.parameters()}
    assert not [name for name in method.state_dict() if "teacher" in name]
    train(method, [batch(seed) for seed in range(3)])
    assert same(before, weights(network))
    again = PeerMutualKD(
        [net(2), net(3)], Teacher(net(1, 8, norm=True)), teacher_mode="frozen", order="sequential"
    )
    train(again, [batch(seed) for seed in range(3)])
    assert same(weights(method), weights(again))


def test_forwards_that_no_term_reads_are_not_run():
    ran = []
    method = cohort(3, ml_weight=0.0)
    for name, network in method._cohort().items():
        network.register_forward_hook(lambda *_, name=name: ran.append(name))
    for update, expected in (("teacher", {"teacher"}), ("student1", {"teacher", "student1"})):
        ran.clear()
        method(batch(), update)
        assert set(ran) == expected
