"""What a model is for: how a batch enters it, the supervised loss, the score."""

from limbeck.task.base import RESERVED, Batch, Kind, Task
from limbeck.task.batches import (
    Over,
    as_model_type,
    declared,
    denominator,
    inputs_of,
    move,
    num_samples,
)
from limbeck.task.kinds import Classification, MultiLabel, Regression, Tokens

__all__ = [
    "RESERVED",
    "Batch",
    "Classification",
    "Kind",
    "MultiLabel",
    "Over",
    "Regression",
    "Task",
    "Tokens",
    "as_model_type",
    "declared",
    "denominator",
    "inputs_of",
    "move",
    "num_samples",
]
