from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from limbeck.errors import RequestError
from limbeck.task import Classification, MultiLabel, Regression, Tokens, denominator


def test_batches_of_any_common_form_come_to_normal_form():
    task, inputs, targets = Classification(3), torch.rand(2, 4), torch.tensor([0, 1])
    assert set(task.batch((inputs, targets))) == {"inputs", "targets"}
    assert set(task.batch([inputs, targets, torch.arange(2)])) == {"inputs", "targets", "index"}
    assert task.batch(inputs)["inputs"] is inputs
    normal = task.batch({"inputs": inputs, "targets": targets, "extra": targets})
    assert task.batch(normal) == normal
    theirs = {"input_ids": targets, "attention_mask": targets, "labels": targets, "index": targets}
    normal = task.batch(theirs)
    assert set(normal) == {"inputs", "targets", "index"}
    assert set(normal["inputs"]) == {"input_ids", "attention_mask"}


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ("text", "type str"),
        ((1, 2, 3, 4), "4 parts"),
        ({"labels": torch.zeros(2)}, "no inputs"),
    ],
)
def test_other_batches_are_refused(batch, message):
    with pytest.raises(RequestError, match=message):
        Classification(3).batch(batch)


def test_a_model_gets_the_inputs_that_it_declares_and_outputs_are_read():
    class Plain(nn.Module):
        def forward(self, input_ids):
            return {"logits": input_ids.float()}

    class Any(nn.Module):
        def forward(self, **inputs):
            return (torch.tensor(len(inputs)),)

    batch = {"inputs": {"input_ids": torch.ones(2, 3), "token_type_ids": torch.ones(2, 3)}}
    assert Classification().call(Plain(), batch).shape == (2, 3)
    assert int(Classification().call(Any(), batch)) == 2
    with pytest.raises(RequestError, match="the model returns str"):
        Classification().read("text")


def test_unlabelled_samples_do_not_count():
    task, output = Classification(4), torch.randn(6, 4, requires_grad=True)
    targets = torch.tensor([0, -1, 3, -1, 1, -1])
    loss = task.loss(output, {"inputs": output, "targets": targets})
    torch.testing.assert_close(loss, F.cross_entropy(output[targets >= 0], targets[targets >= 0]))
    nothing = task.loss(output, {"inputs": output, "targets": torch.full((6,), -1)})
    nothing.backward()
    assert float(nothing.detach()) == 0
    assert not output.grad.any()
    assert task.counts({"inputs": output, "targets": targets}) == {"samples": 6, "targets": 3}


def test_counts_of_the_loop_make_micro_batches_exact():
    task, output = Classification(4), torch.randn(8, 4, dtype=torch.float64)
    targets = torch.tensor([0, -1, -1, -1, 1, 2, 3, 0])
    whole = task.loss(output, {"inputs": output, "targets": targets})
    count = {"samples": 8 / 2, "targets": 5 / 2}
    parts = [
        task.loss(output[part], {"inputs": output[part], "targets": targets[part], "count": count})
        for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(sum(parts) / 2, whole)
    assert denominator({}, "samples", 8) == 8


def test_padding_of_tokens_may_hold_anything():
    task, output = Tokens(), torch.randn(2, 4, 5)
    targets = torch.tensor([[1, 2, -100, -100], [0, -100, -100, -100]])
    output[targets == -100] = float("nan")
    loss = task.loss(output, {"inputs": output, "targets": targets})
    torch.testing.assert_close(loss, F.cross_entropy(output[targets != -100], targets[targets != -100]))
    score = task.score(task.measure(output, {"inputs": output, "targets": targets}))
    assert 0 <= score["token_accuracy"] <= 1
    assert score["loss"] == pytest.approx(float(loss))


def test_causal_tokens_are_judged_against_the_next():
    task, output = Tokens(causal=True), torch.randn(1, 4, 5)
    targets = torch.tensor([[4, 1, 2, 3]])
    loss = task.loss(output, {"inputs": output, "targets": targets})
    torch.testing.assert_close(loss, F.cross_entropy(output[0, :3], targets[0, 1:]))
    assert task.counts({"inputs": output, "targets": targets})["targets"] == 3
    short = torch.tensor([[4, 1, -100], [4, -100, -100]])  # the second has no target one position later
    counts = task.counts({"inputs": short, "targets": short})
    assert counts == {"samples": 2, "targets": 1, "sequences": 1}


def test_several_labels_and_real_values():
    output = torch.randn(3, 4)
    labels = torch.tensor([[1, 0, 0, 1], [-1, -1, -1, -1], [0, 1, 0, 0]])
    batch = {"inputs": output, "targets": labels}
    wanted = F.binary_cross_entropy_with_logits(output[::2], labels[::2].float(), reduction="sum") / 2
    torch.testing.assert_close(MultiLabel(4).loss(output, batch), wanted)
    assert set(MultiLabel(4).score(MultiLabel(4).measure(output, batch))) == {"exact_match", "label_accuracy"}
    values = torch.tensor([[1.0], [float("nan")], [3.0]])
    predicted = torch.tensor([[1.5], [9.0], [3.0]])
    batch = {"inputs": predicted, "targets": values}
    assert float(Regression().loss(predicted, batch)) == pytest.approx(0.125)
    assert Regression().score(Regression().measure(predicted, batch))["r2"] == pytest.approx(1 - 0.125)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(RequestError, match=r"outputs \(2, 3\) and targets \(4,\)"):
        Classification(3).loss(torch.zeros(2, 3), {"targets": torch.zeros(4, dtype=torch.long)})
    with pytest.raises(RequestError, match="no targets"):
        Classification(3).loss(torch.zeros(2, 3), {"inputs": torch.zeros(2, 3)})
    with pytest.raises(RequestError, match="no sample has a label"):
        Classification(3).score(
            Classification(3).measure(torch.zeros(2, 3), {"targets": torch.tensor([-1, -1])})
        )
