"""Your own data and networks in a whole run: functions that a recipe names.

Differs from the others: no loop at all. The same as `limbeck distill recipe.toml` with these names in it.
"""

import torch
from torch import Tensor, nn

import limbeck

CLASSES = ["inside", "on the rim", "outside"]


def points(root=None, seed: int = 0) -> dict:
    """The data: `data.root` and `data.seed` come as arguments, if a function names them.

    A part is a pair of tensors, a torch data set, or one of Hugging Face. Parts that are not there (here
    validation) are drawn from the training samples.
    """
    return {"train": ring(600, seed + 1), "test": ring(300, seed + 2), "classes": CLASSES}


def ring(number: int, seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    inputs = 2 * torch.randn(number, 2, generator=draw)
    distance = inputs.norm(dim=1)
    return inputs, (distance > 1.5).long() + (distance > 3).long()


def network(num_classes: int, width: int) -> nn.Module:
    """A network: `num_classes`, `channels` and `size` come if it names them, the rest from `options`."""
    return nn.Sequential(nn.Linear(2, width), nn.ReLU(), nn.Linear(width, num_classes))


if __name__ == "__main__":
    recipe = limbeck.Recipe(
        name="ring",
        data={"source": "own_data:points"},
        teacher={"model": "own_data:network", "options": {"width": 128}},
        student={"model": "own_data:network", "options": {"width": 16}},
        method={"name": "kd", "temperature": 2.0},
        train={"epochs": 20, "batch_size": 25, "optimizer": "Adam", "learning_rate": 0.02},
    )
    run = limbeck.distill(recipe)
    print(run)
    # The folder says that this file builds the network; code that lies elsewhere is run only if you say so.
    student = limbeck.load(run.folder, run_code=True)
    print(student.predict([0.1, 0.2]))
