"""The mean of a network's weights at the ends of its last epochs."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from limbeck._taps.paths import plain
from limbeck.method import copy_of
from limbeck.taps import untapped


class LastEpochs(nn.Module):
    """Keeps the mean of the weights that a network had at the ends of its last epochs, each counted once.

    What it keeps is a part of the state, so that a resume goes on with it; nothing of it trains. Numbers that
    are whole, as counters of batches, are not averaged: the latest are taken.

    Args:
        network: what trains.
        number: of epochs, at least 1.
    """

    counted: Tensor
    ended: Tensor

    def __init__(self, network: nn.Module, number: int) -> None:
        super().__init__()
        self.number = number
        self.mean = copy_of(untapped(network))
        self.register_buffer("counted", torch.tensor(0))
        self.register_buffer("ended", torch.tensor(0))
        self._seen = 0

    def step(self, network: nn.Module, epoch: int, epochs: int) -> None:
        """To be called before every step: at the first of an epoch the end of the one before is counted.

        Args:
            network: what trains.
            epoch: the present one, from 1.
            epochs: all of them.
        """
        if epoch == self._seen:
            return
        self._seen = epoch
        if epoch == 1:
            self.counted.zero_()
            self.ended.zero_()
        if epoch - 1 <= max(epochs - self.number, int(self.ended)):
            return  # not one of the last, or counted before a resume
        self.ended.fill_(epoch - 1)
        self.counted.add_(1)
        _blend(self.mean, network, 1 / int(self.counted))

    def averaged(self, network: nn.Module) -> nn.Module:
        """A network with the mean of what was counted and of the present weights."""
        mean = copy.deepcopy(self.mean)
        _blend(mean, network, 1 / (int(self.counted) + 1))
        return mean


@torch.no_grad()
def _blend(mean: nn.Module, network: nn.Module, share: float) -> None:
    """Moves a mean towards a network, in place."""
    now = plain(network).state_dict()
    for name, value in mean.state_dict().items():
        if value.is_floating_point():
            value.lerp_(now[name].to(value), share)
        else:
            value.copy_(now[name])
