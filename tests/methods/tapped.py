"""Small networks with stages to tap, and data for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from limbeck.data.dataset import ArrayDataset

CLASSES = 4


class Block(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, wide: int, out: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(wide, out, 3, stride, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
        )


class Cnn(nn.Module):
    """A stem, stages `layer1`, `layer2`, ... of halving size, dropout, a head `fc`; inputs [B, 2, 8, 8]."""

    def __init__(self, widths: Sequence[int], *, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = Block(2, widths[0], 1)
        self.depth = len(widths)
        for number, (wide, out) in enumerate(zip([widths[0], *widths], widths, strict=False), start=1):
            setattr(self, f"layer{number}", Block(wide, out, 1 if number == 1 else 2))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number in range(1, self.depth + 1):
            x = self.dropout(self.get_submodule(f"layer{number}")(x))
        return self.fc(x.mean((2, 3)))


class Encoder(nn.Module):
    """Tokens through `blocks`, the mean over positions, `fc`; a forward of keyword inputs."""

    def __init__(self, width: int, depth: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(depth))
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = x + block(x)
        mask = attention_mask.unsqueeze(2).to(x.dtype)
        return self.fc((x * mask).sum(1) / mask.sum(1))


def cnn(*widths: int, seed: int = 0, dropout: float = 0.0) -> Cnn:
    torch.manual_seed(seed)
    return Cnn(widths, dropout=dropout)


def encoder(width: int, depth: int = 2, seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(width, depth)


def images(samples: int = 8, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A batch in normal form."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(samples, 2, 8, 8, generator=generator, dtype=dtype)
    return {"inputs": pixels, "targets": torch.arange(samples) % CLASSES, "index": torch.arange(samples)}


def texts(samples: int = 6, length: int = 5, *, seed: int = 0) -> dict[str, object]:
    """A batch of padded sequences of lengths 1 to `length`."""
    generator = torch.Generator().manual_seed(seed)
    lengths = 1 + torch.arange(samples) % length
    inputs = {
        "input_ids": torch.randint(0, 11, (samples, length), generator=generator),
        "attention_mask": (torch.arange(length) < lengths[:, None]).long(),
    }
    return {"inputs": inputs, "targets": torch.arange(samples) % CLASSES, "index": torch.arange(samples)}


def dataset(samples: int = 40, *, labelled: int | None = None) -> ArrayDataset:
    """Pictures whose class is in the brightness of a corner; only the first `labelled` have a label."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(samples) % CLASSES
    pixels = torch.rand(samples, 2, 8, 8, generator=generator) * 0.5
    for number in range(CLASSES):
        row, column = 4 * (number // 2), 4 * (number % 2)
        pixels[targets == number, :, row : row + 4, column : column + 4] += 0.5
    if labelled is not None:
        targets = targets.where(torch.arange(samples) < labelled, -1)
    return ArrayDataset(pixels, targets)


def state(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(before: dict[str, Tensor], module: nn.Module) -> set[str]:
    """Names of the parameters and buffers that are not bit-identical to before."""
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
