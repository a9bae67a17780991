from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from limbeck.ensemble import Ensemble, combine, disagreement, majority_vote, pool_boxes
from limbeck.errors import RequestError
from limbeck.task import Classification


class Fixed(nn.Module):
    """Answers the same logits to every sample."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, inputs):
        return self.logits.expand(len(inputs), -1)


def test_mean_of_probabilities_and_of_logits():
    logits = [torch.tensor([[10.0, 0.0, 9.0]]), torch.tensor([[0.0, 0.5, 1.2]])]
    mean = torch.stack([each.softmax(1) for each in logits]).mean(0)
    torch.testing.assert_close(combine(logits).exp(), mean)
    torch.testing.assert_close(combine(logits, "logits"), torch.tensor([[5.0, 0.25, 5.1]]))
    assert combine(logits).argmax() == 0
    assert combine(logits, "logits").argmax() == 2


@pytest.mark.parametrize(
    ("rows", "winner"),
    [
        ([[3.0, 2, 1], [3, 2, 1], [1, 2, 3]], 0),  # two votes against one
        ([[3.0, 2, 1], [1, 2, 3]], 0),  # tie of 0 and 2, both ranks 0 + 2: the lower class
        ([[3.0, 1, 2], [2, 1, 3]], 0),  # tie of 0 and 2, ranks 0 + 1 each
        ([[1.0, 2, 3], [2, 3, 1]], 1),  # tie of 2 and 1: ranks 0 + 2 against 1 + 0
        ([[0.0, 0, 0], [0, 0, 0]], 0),  # nothing to tell them apart
    ],
)
def test_majority_vote_and_its_ties(rows, winner):
    logits = [torch.tensor([row]) for row in rows]
    assert majority_vote(logits).argmax(1).item() == winner


def test_many_votes_beat_any_ranks():
    torch.manual_seed(0)
    logits = [torch.randn(50, 30) for _ in range(7)]
    votes = torch.stack([each.argmax(1) for each in logits])
    winner = majority_vote(logits).argmax(1)
    for sample in range(50):
        counts = votes[:, sample].bincount(minlength=30)
        assert counts[winner[sample]] == counts.max()


@pytest.mark.parametrize("combining", ["probabilities", "logits", "vote"])
def test_an_ensemble_is_a_network_that_a_task_can_score(combining):
    ensemble = Ensemble([Fixed([1.0, 0.0]), Fixed([0.5, 0.0])], combining=combining)
    task, batch = Classification(2), {"inputs": torch.zeros(3, 1), "targets": torch.tensor([0, 0, 1])}
    with torch.no_grad():
        output = task.call(ensemble, batch)
    assert output.shape == (3, 2)
    assert task.score(task.measure(output, batch))["accuracy"] == pytest.approx(2 / 3)


def test_loss_of_mean_probabilities_is_that_of_the_mean_prediction():
    ensemble = Ensemble([Fixed([math.log(0.9), math.log(0.1)]), Fixed([math.log(0.5), math.log(0.5)])])
    loss = Classification().loss(ensemble(torch.zeros(1, 1)), {"targets": torch.tensor([0])})
    assert loss.item() == pytest.approx(-math.log(0.7))


def test_keyword_inputs_reach_the_networks_that_declare_them():
    class One(nn.Module):
        def forward(self, ids):
            return ids.float()

    class Two(nn.Module):
        def forward(self, ids, mask):
            return ids.float() * mask

    ids, mask = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 0], [0, 1]])
    batch = {"inputs": {"ids": ids, "mask": mask}}
    output = Classification().call(Ensemble([One(), Two()], combining="logits"), batch)
    torch.testing.assert_close(output, (ids + ids * mask) / 2)


def test_disagreement_is_a_mean_over_pairs():
    logits = [torch.eye(3)[[0, 1, 2, 0]], torch.eye(3)[[0, 1, 2, 1]], torch.eye(3)[[0, 2, 2, 2]]]
    assert disagreement(logits).item() == pytest.approx((1 + 2 + 2) / 12)


def test_refusals():
    with pytest.raises(RequestError, match="no networks"):
        Ensemble([])
    with pytest.raises(RequestError, match=r"'mean'.*probabilities, logits, vote"):
        Ensemble([Fixed([1.0])], combining="mean")
    with pytest.raises(RequestError, match="3 and 2 classes"):
        combine([torch.zeros(1, 3), torch.zeros(1, 2)])


def found(*entries):
    boxes, scores, labels = zip(*entries, strict=True) if entries else ((), (), ())
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float64).reshape(-1, 4),
        "scores": torch.tensor(scores, dtype=torch.float64),
        "labels": torch.tensor(labels, dtype=torch.int64),
    }


SEEN = [
    found(((0, 0, 10, 10), 0.9, 1), ((20, 20, 30, 30), 0.5, 1), ((0, 0, 10, 10), 0.4, 2)),
    found(((1, 0, 11, 10), 0.6, 1), ((21, 20, 31, 30), 0.7, 1)),
    found(),
]


def test_pooled_boxes_of_one_object_leave_the_best():
    pooled = pool_boxes(SEEN)
    assert pooled["boxes"].tolist() == [[0, 0, 10, 10], [21, 20, 31, 30], [0, 0, 10, 10]]
    assert pooled["scores"].tolist() == [0.9, 0.7, 0.4]
    assert pooled["labels"].tolist() == [1, 1, 2]
    assert len(pool_boxes(SEEN, threshold=0.9)["boxes"]) == 5


def test_boxes_that_overlap_by_the_threshold_are_two_objects():
    halves = [found(((0, 0, 10, 10), 0.9, 1)), found(((0, 0, 10, 5), 0.6, 1))]
    assert len(pool_boxes(halves)["boxes"]) == 2
    assert len(pool_boxes(halves, threshold=0.49)["boxes"]) == 1


def test_fused_boxes_are_averaged_and_lone_ones_count_less():
    pooled = pool_boxes(SEEN, fusion=True)
    torch.testing.assert_close(pooled["boxes"][0], torch.tensor([0.4, 0, 10.4, 10], dtype=torch.float64))
    left = (0.7 * 21 + 0.5 * 20) / 1.2
    assert pooled["boxes"][1][0].item() == pytest.approx(left)
    expected = [0.75 * 2 / 3, 0.6 * 2 / 3, 0.4 / 3]
    torch.testing.assert_close(pooled["scores"], torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("fusion", [False, True])
def test_pooling_nothing_and_one(fusion):
    nothing = pool_boxes([found(), found()], fusion=fusion)
    assert [len(value) for value in nothing.values()] == [0, 0, 0]
    alone = pool_boxes([SEEN[1]], fusion=fusion)
    assert alone["scores"].tolist() == [0.7, 0.6]
    with pytest.raises(RequestError, match="no detectors"):
        pool_boxes([], fusion=fusion)


def test_suppression_equals_that_of_torchvision():
    ops = pytest.importorskip("torchvision.ops")
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + 2 + torch.rand(60, 2, generator=generator) * 8], 1)
    scores, labels = torch.rand(60, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    whole = {"boxes": boxes, "scores": scores, "labels": labels}
    pieces = [{name: value[i::3] for name, value in whole.items()} for i in range(3)]
    kept = ops.batched_nms(boxes, scores, labels, 0.5)
    assert torch.equal(pool_boxes(pieces)["boxes"], boxes[kept])
