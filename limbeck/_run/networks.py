"""Networks as a recipe describes them: built from a seed, with the weights that it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from limbeck._recipe.sections import Network, Statistics
from limbeck._recipe.toml import Path
from limbeck.data.dataset import Dataset, Splits
from limbeck.errors import RequestError
from limbeck.models.building import Built
from limbeck.models.preprocessing import pixel_statistics
from limbeck.models.registry import prepare
from limbeck.recipe import Recipe

Pixels = tuple[tuple[float, ...], tuple[float, ...]]

_SAMPLES = 4096  # training pictures whose statistics stand for all
_BATCH = 256
#: What to try for a key of a network's table where the message brings no fix of its own.
_FIXES = {
    "weights": "a .safetensors file, a .pt file of weights alone, or a student/ folder",
    "options": "an option of the model's constructor, with a value of its type",
    "normalize": 'normalize = "imagenet", or a table with mean and std',
}


def build(
    recipe: Recipe,
    spec: Network,
    weights: str | None,
    splits: Splits,
    statistics: Pixels | None,
    path: Path,
    seed: int,
) -> Built:
    """A network of a recipe.

    Args:
        recipe: for places in messages.
        spec: its table in the recipe.
        weights: a file or folder to read them from; None: random, from the seed.
        splits: the data whose inputs it takes.
        statistics: of the training pictures, see `statistics_of`.
        path: where the table stands.
        seed: of the random weights.

    Raises:
        RequestError: no such model, or it does not fit; with the place of the key.
    """
    normalize = spec.normalize
    given = normalize.model_dump() if isinstance(normalize, Statistics) else normalize
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            built = prepare(
                spec.model,
                num_classes=num_outputs(splits),
                inputs=splits.train.batch([0])["inputs"],
                options=spec.options,
                normalize=given,
                size=spec.size,
                channels=spec.channels,
                weights=weights,
                statistics=statistics,
            )
        except RequestError as error:
            key = _culprit(spec, error.message)
            where = error.where or recipe.where(*path, key, value=True)
            fix = error.fix or (None if error.near else _FIXES.get(key))
            raise RequestError(error.message, fix=fix, near=error.near, where=where) from error
    return built


def _culprit(spec: Network, said: str) -> str:
    """The key of a network's table that a message is about."""
    if spec.weights is not None and spec.weights in said:
        return "weights"
    if spec.options and " option " in said:
        return "options"
    if spec.normalize is not None and any(
        word in said for word in ("statistics", "normalize", "mean", "std")
    ):
        return "normalize"
    return "model"


def num_outputs(splits: Splits) -> int:
    """How many outputs a network needs: one a class, or one a value."""
    if splits.classes:
        return len(splits.classes)
    targets = splits.train.targets()
    return 1 if targets.ndim == 1 else targets.shape[1]


def statistics_of(train: Dataset) -> Pixels | None:
    """Mean and standard deviation by channel of the training pictures; None for what is no picture."""
    if not len(train):
        return None
    inputs = train.batch([0])["inputs"]
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or not inputs.is_floating_point():
        return None
    places = torch.arange(0, len(train), max(len(train) // _SAMPLES, 1))
    parts = torch.split(places, _BATCH)
    return pixel_statistics(train.batch(part)["inputs"] for part in parts)


class Reordered(nn.Module):
    """A network whose outputs are taken in another order, so that classes match by name.

    Args:
        body: the network.
        order: for each output, its place in the body's.
    """

    order: Tensor

    def __init__(self, body: nn.Module, order: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        """Inputs of the body -> its logits [B, K] in the order asked for."""
        output = self.body(*inputs, **named)
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits[:, self.order]


def by_name(built: Built, classes: Sequence[str] | None, what: str) -> nn.Module:
    """The network with its outputs in the order of the data's classes, if it knows their names.

    Raises:
        RequestError: it does not know a class of the data.
    """
    theirs = built.classes
    if not theirs or not classes or list(theirs) == list(classes):
        return built.network
    missing = [name for name in classes if name not in theirs]
    if missing:
        known = ", ".join(theirs[:5]) + (", ..." if len(theirs) > 5 else "")
        raise RequestError(
            f"{what} knows no class {missing[0]!r}; it has {known}", fix="a network trained on these classes"
        )
    return Reordered(built.network, [theirs.index(name) for name in classes])


def stored_bytes(network: nn.Module) -> int:
    """Bytes of all that a network saves, each tensor once."""
    tensors: Mapping[int, Tensor] = {value.data_ptr(): value for value in network.state_dict().values()}
    return sum(value.numel() * value.element_size() for value in tensors.values())
