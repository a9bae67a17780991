from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from limbeck.engine import evaluate
from limbeck.ensemble import Ensemble
from limbeck.errors import RequestError, RunError
from limbeck.integrations.huggingface import METHOD_FILE, DistillationTrainer
from limbeck.method import Stage, Update
from limbeck.methods import KD, PeerMutualKD, Plain
from tests.integrations.loops import arguments, constant, perceptron, rows


def bert(seed, layers=1, **settings):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "vocab_size": 30}
    config = BertConfig(
        num_hidden_layers=layers, num_labels=3, max_position_embeddings=16, **sizes, **settings
    )
    return BertForSequenceClassification(config)


def texts(samples=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 30, (samples, 7), generator=generator)
    labels = torch.randint(0, 3, (samples,), generator=generator)
    return [
        {"input_ids": ids[i], "attention_mask": torch.ones(7).long(), "labels": labels[i]}
        for i in range(samples)
    ]


def state(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def trainer(folder, method=None, data=None, held=None, **settings):
    method = method or KD(perceptron(1), perceptron(2, 16))
    return DistillationTrainer(
        method,
        arguments(folder, **settings),
        train_dataset=data or rows(),
        eval_dataset=held or rows(11, seed=1),
    )


def test_evaluate_and_predict_act_on_the_student(tmp_path):
    run = trainer(tmp_path, eval_strategy="epoch")
    run.train()
    held = rows(11, seed=1)
    inputs, targets = (torch.stack([row[key] for row in held]) for key in ("inputs", "targets"))
    scores = evaluate(run.method.deployable(), (inputs, targets))
    assert run.evaluate()["eval_loss"] == pytest.approx(scores["loss"], abs=1e-6)
    predictions = run.predict(held)
    student = run.method.deployable().eval()
    torch.testing.assert_close(torch.from_numpy(predictions.predictions), student(inputs).detach())
    assert predictions.label_ids.tolist() == targets.tolist()
    unlabelled = [{"inputs": row["inputs"]} for row in held]
    assert run.predict(unlabelled).predictions.shape == (11, 3)
    assert run.model is run.method


def test_metrics_of_the_user_are_those_of_the_student(tmp_path):
    run = trainer(tmp_path)
    run.compute_metrics = lambda p: {"right": float((p.predictions.argmax(1) == p.label_ids).mean())}
    held = rows(11, seed=1)
    student = run.method.deployable().eval()
    right = [int(student(row["inputs"][None]).argmax()) == int(row["targets"]) for row in held]
    assert run.evaluate()["eval_right"] == pytest.approx(sum(right) / 11)


def test_a_hugging_face_student_is_saved_as_from_pretrained_loads_it(tmp_path):
    method = KD(bert(1), bert(2, layers=2))
    run = DistillationTrainer(method, arguments(tmp_path, save_strategy="epoch"), train_dataset=texts())
    run.train()
    run.save_model(str(tmp_path / "student"))
    for folder in ("student", "checkpoint-2"):
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / folder)
        assert same(state(loaded), state(method.student))
        assert (tmp_path / folder / METHOD_FILE).exists() == (folder != "student")


def test_tied_weights_of_other_students_are_saved_once(tmp_path):
    from safetensors.torch import load_model

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 3), nn.Linear(6, 3)
            self.two.weight = self.one.weight

        def forward(self, inputs):
            return self.one(inputs) + self.two(inputs)

    run = trainer(tmp_path, KD(Tied(), perceptron(2)), save_strategy="epoch")
    run.train()
    loaded = Tied()
    load_model(loaded, str(tmp_path / "checkpoint-3" / "model.safetensors"))
    assert same(state(loaded), state(run.method.student))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path, accumulation):
    def run(folder, epochs=4, **options):
        method = KD(perceptron(1), perceptron(2, 16), warmup=3)
        settings = {"save_strategy": "steps", "save_steps": 2, "gradient_accumulation_steps": accumulation}
        settings |= {"train_sampling_strategy": "random", "num_train_epochs": epochs}
        made = trainer(tmp_path / folder, method, rows(32), per_device_train_batch_size=4, **settings)
        made.train(**options)
        return made

    whole = run("whole")
    checkpoint = tmp_path / "whole" / "checkpoint-4"
    again = run("again", resume_from_checkpoint=str(checkpoint))
    assert same(state(whole.method), state(again.method))
    assert not [name for name in state(again.method) if "teacher" in name]


def test_a_checkpoint_of_another_trainer_is_refused(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    with pytest.raises(RequestError, match=r"has no method\.safetensors"):
        trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_the_best_checkpoint_is_loaded_into_the_method(tmp_path):
    settings = {"eval_strategy": "epoch", "save_strategy": "epoch", "num_train_epochs": 3}
    settings |= {"load_best_model_at_end": True, "metric_for_best_model": "loss", "learning_rate": 0.3}
    run = trainer(tmp_path, **settings)
    run.train()
    losses = [line["eval_loss"] for line in run.state.log_history if "eval_loss" in line]
    assert run.evaluate()["eval_loss"] == pytest.approx(min(losses), abs=1e-6)


def test_the_log_has_unweighted_terms(tmp_path):
    run = trainer(tmp_path, logging_steps=3)
    losses = []
    run.method.register_forward_hook(lambda module, inputs, output: losses.append(output.detached()))
    run.train()
    (line,) = [line for line in run.state.log_history if "soft" in line]
    for name in ("hard", "soft"):
        assert line[name] == pytest.approx(sum(each[name].item() for each in losses) / 3, abs=1e-6)


def test_the_loop_sets_what_methods_read(tmp_path):
    seen = []

    def note(module, inputs, output):
        seen.append((module.epoch, module.epochs, round(module.progress, 3), list(module.optimizers)))

    run = trainer(tmp_path, num_train_epochs=2)
    run.method.register_forward_hook(note)
    run.train()
    assert [each[0] for each in seen] == [1, 1, 1, 2, 2, 2]
    assert [each[2] for each in seen] == [0.0, 0.167, 0.333, 0.5, 0.667, 0.833]
    assert {each[1] for each in seen} == {2}
    assert all(each[3] == ["student"] for each in seen)


def test_a_loss_that_is_not_finite_stops_before_the_step(tmp_path):
    class Sick(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(6, 3)

        def forward(self, inputs):
            return self.body(inputs) / (inputs[:, :1] != 7)

    data = rows()
    data[9]["inputs"] = torch.full((6,), 7.0)
    run = trainer(tmp_path, KD(Sick(), perceptron(2)), data)
    with pytest.raises(RunError, match=r"hard = nan, soft = nan \(samples 8, 9"):
        run.train()
    assert all(value.isfinite().all() for value in run.method.student.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_smoothing_factor": 0.1}, "does not take label_smoothing_factor"),
        ({"torch_compile": True}, r"student\.compile\(\)"),
        ({"activation_checkpointing": True}, "switch it on in the student itself"),
    ],
)
def test_settings_behind_the_back_of_the_method_are_refused(tmp_path, settings, message):
    with pytest.raises(RequestError, match=message):
        trainer(tmp_path, **settings)


class Special(KD):  # type: ignore[misc]  # final for users; here to give it other stages
    """Asks for more than one plain update."""

    wish = None

    def stages(self):
        plain = Update("student", {"student": self.student})
        return {
            "stages": [Stage("first", [plain]), Stage("second", [plain])],
            "generator": iter([Stage("first", [plain])]),
            "begin": [Stage("first", [plain], begin=lambda data: data)],
            "whole": [Stage("first", [plain], whole_batches=True)],
            "every": [Stage("first", [Update("student", {"student": self.student}, every=3)])],
            "rate": [Stage("first", [Update("student", {"student": self.student}, rate=0.1)])],
        }[self.wish]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ("stages", r"trains in stages \(first, second\)"),
        ("generator", "decides its stages as it goes"),
        ("begin", "prepares its data"),
        ("whole", "batches that are not whole"),
        ("every", "steps every 3 batches"),
        ("rate", "options of its optimizer"),
    ],
)
def test_methods_that_ask_for_more_are_sent_to_the_engine(tmp_path, wish, message):
    method = Special(perceptron(1), perceptron(2))
    method.wish = wish
    with pytest.raises(RequestError, match=message) as caught:
        trainer(tmp_path, method)
    assert "limbeck.fit(" in str(caught.value)


def test_the_plain_student_trains_on_data_that_are_all_labelled(tmp_path):
    run = trainer(tmp_path, Plain(perceptron(1)), learning_rate=0.1)
    before = state(run.method)
    run.train()
    assert not same(before, state(run.method))
    some = [row if row["index"] % 3 else {**row, "targets": torch.tensor(-1)} for row in rows()]
    with pytest.raises(RequestError, match="Plain trains on labelled samples alone, and 3 of a batch of 8"):
        trainer(tmp_path, Plain(perceptron(1)), data=some).train()


def test_cohorts_train_where_they_step_together(tmp_path):
    students = [perceptron(1), perceptron(2)]
    with pytest.raises(RequestError, match=r"several updates a step \(teacher, student0, student1\)"):
        trainer(tmp_path, PeerMutualKD(students, perceptron(3, 16)))
    run = trainer(
        tmp_path, PeerMutualKD(students, perceptron(3, 16), order="simultaneous"), learning_rate=0.1
    )
    before = state(run.method)
    run.train()
    assert not any(
        torch.equal(before[n], p) for n, p in run.method.named_parameters() if n.endswith("weight")
    )
    assert isinstance(next(iter(run.method.networks().values())), Ensemble)
    assert "eval_loss" in run.evaluate()


def test_iterable_and_map_style_data(tmp_path):
    class Mapped(Dataset):
        def __len__(self):
            return 24

        def __getitem__(self, i):
            return rows()[i]

    one, other = (trainer(tmp_path, data=data, learning_rate=0.1) for data in (Mapped(), rows()))
    one.train()
    other.train()
    assert same(state(one.method), state(other.method))


def test_optimizers_of_the_user_are_used(tmp_path):
    method = KD(perceptron(1), perceptron(2))
    optimizer, schedule = constant(torch.optim.SGD(method.parameters(), lr=0.0))
    before = {name: p.detach().clone() for name, p in method.named_parameters()}
    DistillationTrainer(
        method, arguments(tmp_path), train_dataset=rows(), optimizers=(optimizer, schedule)
    ).train()
    assert all(torch.equal(before[name], p) for name, p in method.named_parameters())
