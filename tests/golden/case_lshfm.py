"""Cases of lshfm: one batch with all variants, and the bias of its hyperplanes from a set of features."""

from __future__ import annotations

from torch import Tensor, nn

from limbeck.data.dataset import ArrayDataset
from limbeck.losses import hash_values
from limbeck.methods import LSHFM
from limbeck.record import Record
from tests.golden import Arrays, Case, Results, gradient

LAYER = "fc.input"
#: By the start of the names of their arrays.
VARIANTS = {
    "lsh": {"variant": "lsh"},
    "lsh_bias0": {"variant": "lsh", "bias": "zero"},
    "lshl2": {"variant": "lshl2"},
    "hashl2": {"variant": "hash_l2"},
    "hashl1": {"variant": "hash_l1"},
    "lshl2_s": {"variant": "lshl2_s"},
}


class Network(nn.Module):
    """Features are its inputs."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.scale = nn.Linear(width, width)
        self.fc = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        return self.fc(features + 0 * self.scale(features))


def method(file: Arrays, **settings: object) -> LSHFM:
    """A method with the hyperplanes of a file, whose bias is fitted on the stored features."""
    weight, bank, classes = file["W"], file["bank"], file["logits_t"].shape[1]
    networks = (Network(weight.shape[1], classes).to(bank.dtype) for _ in range(2))
    made = LSHFM(
        *networks,
        example={"inputs": bank},
        num_hashes=len(weight),
        std=file.number("std"),
        hard_weight=0.0,
        **settings,
    ).to(bank.dtype)
    made.hash_weight.copy_(weight)
    stage = made.stages()[0]
    if stage.begin is not None:
        stage.begin(ArrayDataset(bank))
    return made


def one_batch(file: Arrays) -> Results:
    target = file["f_t"]
    teacher = Record(file["logits_t"], {LAYER: target})
    results: dict[str, Tensor] = {}
    for name, settings in VARIANTS.items():
        made, features = method(file, **settings), file.leaf("f_s")
        batch = {"inputs": features, "targets": file["labels"]}
        student = Record(file["logits_t"], {LAYER: features})
        loss = sum(made.losses(student, teacher, batch).terms.values())
        results |= {f"{name}_loss": loss, f"{name}_grad": gradient(loss, features)}
    median = method(file)
    codes = hash_values(target, median.hash_weight, median.hash_bias) > 0
    return {
        **results,
        "b_median": median.hash_bias,
        "b_mean": method(file, bias="mean").hash_bias,
        "codes_t": codes.byte(),
    }


CASES = (Case("one batch", needs=("bank", "W", "lsh_loss"), results=one_batch, tolerance32=1e-6),)
