"""C3: openai/parameter-golf#1029.

The top 32 of 1024 logits were kept and the rest dropped: of flat logits these hold a fifth of the mass, and
the student learned nothing. The mass of the rest is stored, so the divergence to it still counts.
"""

from __future__ import annotations

import torch
from torch import nn

from limbeck import CachedTeacher, Teacher
from limbeck.cache import Store
from limbeck.data.dataset import ArrayDataset
from limbeck.losses import TopK
from limbeck.methods import KD
from tests.check.faults import checked

CLASSES = 1024


def rows() -> ArrayDataset:
    return ArrayDataset(torch.randn(32, 16), torch.randint(0, CLASSES, (32,)))


def test_the_mass_of_the_dropped_classes_is_kept(tmp_path):
    data, network = rows(), nn.Linear(16, CLASSES)
    store = Store(top_k=32, temperatures=(1.0, 2.0))
    stored = CachedTeacher(network, tmp_path / "c", data, store=store)
    batch = data.batch(torch.arange(32))
    answer, live = stored(batch).output, Teacher(network)(batch).output
    assert isinstance(answer, TopK)
    mass = stored.kept_mass()
    assert mass is not None
    assert 0.03 < mass < 0.4
    for temperature in (1.0, 2.0):
        kept, rest = answer.log_probabilities(temperature)
        assert torch.allclose(kept.exp().sum(1) + rest.exp(), torch.ones(32), atol=1e-5)
        truth = (live / temperature).softmax(1).gather(1, answer.index)
        assert torch.allclose(kept.exp(), truth, atol=1e-6)
        assert float(kept.exp().sum(1).mean()) < 0.35  # flat logits: most of the mass is in the rest


def test_k_of_all_classes_is_dense_distillation(tmp_path):
    data, network = rows(), nn.Linear(16, CLASSES)
    batch, losses = data.batch(torch.arange(32)), []
    for store in (Store(), Store(top_k=CLASSES, temperatures=(4.0,))):
        torch.manual_seed(1)
        teacher = CachedTeacher(network, tmp_path / f"c{store.top_k}", data, store=store)
        method = KD(nn.Linear(16, CLASSES), teacher)
        loss = method(batch)
        loss.total.backward()
        losses.append((loss.total.detach(), method.student.weight.grad))
    assert torch.allclose(losses[0][0], losses[1][0], rtol=1e-5)
    assert torch.allclose(losses[0][1], losses[1][1], atol=1e-7)


def test_the_student_still_learns_what_top_k_leaves_of_flat_logits(tmp_path):
    """The share of the kept classes is learned too: it is wrong at first and right in the end."""
    data, network = rows(), nn.Linear(16, CLASSES)
    stored = CachedTeacher(network, tmp_path / "c", data, store=Store(top_k=32, temperatures=(1.0,)))
    method = KD(nn.Linear(16, CLASSES), stored, temperature=1.0, alpha=1.0)
    optimizer = torch.optim.Adam(method.parameters(), 0.05)
    batch = data.batch(torch.arange(32))
    first = method(batch).total.item()
    for _ in range(150):
        optimizer.zero_grad()
        method(batch).total.backward()
        optimizer.step()
    assert method(batch).total.item() < first / 20


def test_check_warns_where_the_kept_mass_is_small(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = checked("top-k-keeps-little", tmp_path)
    assert "K204" in [each.code for each in done.findings], done.text()
