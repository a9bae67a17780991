"""Networks with and without what can be folded, for tests of faster forms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from limbeck.models.cifar import cifar_resnet


def lived(network: nn.Module) -> nn.Module:
    """A network in eval mode whose batch statistics are those of some life."""
    torch.manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.uniform_(-0.3, 0.3)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


def resnet() -> nn.Module:
    """ResNet-8 for 32x32."""
    torch.manual_seed(0)
    return lived(cifar_resnet(num_classes=10, depth=8))


class Block(nn.Module):
    """A convolution and a norm, read in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.how = how
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.fc = nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, H, W] to logits [B, 4]."""
        value = self.conv(pixels)
        if self.how == "twice":
            value = self.conv(value)
        if self.how == "changed before":
            value = torch.relu_(value)
        out: Tensor = self.norm(value)
        if self.how == "around":
            out = out + value
        if self.how == "view of it":
            out = out + value[:, :1]
        if self.how == "with its weight":
            out = out + self.conv.weight.sum()
        if self.how == "also returned":
            return self.fc(out.mean((2, 3))), value  # type: ignore[return-value]
        if self.how == "between":
            out = self.norm(torch.relu(value))
        if self.how == "flattened by view":
            return self.fc(out.view(len(out), 3, -1).mean(2))  # type: ignore[no-any-return]
        return self.fc(out.mean((2, 3)))  # type: ignore[no-any-return]


class Flat(nn.Module):
    """Flattens by `view`, which needs contiguous values."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4 * 64, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels [B, 3, 8, 8] to logits [B, 5]."""
        value = self.conv(pixels)
        return self.fc(value.view(len(value), -1))  # type: ignore[no-any-return]
