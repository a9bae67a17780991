from __future__ import annotations

import pytest
import torch
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import Preprocessed, Preprocessing, pixel_statistics
from limbeck.models.preprocessing import statistics


def test_pixels_are_normalised_by_channel():
    network = Preprocessed(nn.Identity(), Preprocessing("image", 3, None, (0.1, 0.2, 0.3), (0.5, 0.25, 1.0)))
    pixels = torch.rand(2, 3, 4, 4)
    expected = torch.stack(
        [(pixels[:, 0] - 0.1) / 0.5, (pixels[:, 1] - 0.2) / 0.25, pixels[:, 2] - 0.3], dim=1
    )
    torch.testing.assert_close(network(pixels), expected)


def test_without_statistics_pixels_stay_bit_equal():
    pixels = torch.rand(2, 1, 4, 4)
    for wants in (Preprocessing("image", 1), Preprocessing("image", 1, None, (0.0,), (1.0,))):
        assert Preprocessed(nn.Identity(), wants)(pixels) is pixels


def test_grey_becomes_colour_and_colour_grey():
    grey = torch.rand(2, 1, 4, 4)
    colour = Preprocessed(nn.Identity(), Preprocessing("image", 3))(grey)
    assert colour.shape == (2, 3, 4, 4)
    assert torch.equal(colour[:, 2:], grey)
    back = Preprocessed(nn.Identity(), Preprocessing("image", 1))(colour)
    torch.testing.assert_close(back, grey)
    with pytest.raises(RequestError, match="2 channels"):
        Preprocessed(nn.Identity(), Preprocessing("image", 3))(torch.rand(1, 2, 4, 4))


def test_shrinking_averages():
    network = Preprocessed(nn.Identity(), Preprocessing("image", 1, (1, 1)))
    pixels = torch.zeros(1, 1, 8, 8)
    pixels[..., ::2] = 1  # without antialiasing, one would see stripes or none
    assert network(pixels).item() == pytest.approx(0.5, abs=0.02)
    assert network(torch.rand(2, 1, 8, 6)).shape == (2, 1, 1, 1)


def test_ids_rows_and_keywords_pass_through():
    class Both(nn.Module):
        def forward(self, ids, mask=None):
            return ids, mask

    ids, mask = torch.arange(6).view(2, 3), torch.ones(2, 3)
    assert Preprocessed(Both(), Preprocessing())(ids, mask=mask) == (ids, mask)
    wants = Preprocessing("image", 1, None, (0.5,), (0.5,))
    pixels = torch.rand(1, 1, 2, 2)
    found, same = Preprocessed(Both(), wants)(ids=pixels, mask=mask)
    torch.testing.assert_close(found, 2 * pixels - 1)
    assert same is mask


def test_the_state_is_that_of_the_body():
    body = nn.Conv2d(1, 2, 3)
    network = Preprocessed(body, Preprocessing("image", 1, None, (0.5,), (0.5,)))
    assert list(network.state_dict()) == ["body.weight", "body.bias"]


def test_named_statistics():
    assert statistics("imagenet", 3)[0] == (0.485, 0.456, 0.406)
    grey_mean, grey_std = statistics("imagenet", 1)
    assert grey_mean == (pytest.approx(0.449),)
    assert grey_std == (pytest.approx(0.226),)
    assert statistics("none", 3) == ((0.0,) * 3, (1.0,) * 3)
    assert statistics("data", 3, ((0.3,), (0.4,))) == ((0.3,) * 3, (0.4,) * 3)
    assert statistics({"mean": [0.5], "std": [0.25]}, 3) == ((0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("imagnet", "no statistics named 'imagnet'"),
        ("data", "needs pictures"),
        ({"mean": [0.5]}, "needed mean and std"),
    ],
)
def test_wrong_statistics_are_refused(wrong, message):
    with pytest.raises(RequestError, match=message) as caught:
        statistics(wrong, 3)
    if wrong == "imagnet":
        assert caught.value.near[0] == "imagenet"


@pytest.mark.parametrize(
    "wrong",
    [
        {"channels": 0},
        {"channels": 3, "mean": (0.5,), "std": (0.5,)},
        {"channels": 1, "mean": (0.5,), "std": (0.0,)},
        {"channels": 1, "mean": (0.5,)},
        {"channels": 1, "size": (0, 3)},
    ],
)
def test_numbers_that_do_not_fit_are_refused(wrong):
    with pytest.raises(RequestError):
        Preprocessing("image", **wrong)


def test_statistics_of_pictures():
    pixels = torch.rand(50, 3, 5, 4)
    mean, std = pixel_statistics(pixels.split(7))
    torch.testing.assert_close(torch.tensor(mean), pixels.mean((0, 2, 3)))
    torch.testing.assert_close(torch.tensor(std), pixels.std((0, 2, 3), correction=0))
    assert pixel_statistics([torch.ones(2, 1, 3, 3)]) == ((1.0,), (1.0,))
    with pytest.raises(RequestError, match="no picture"):
        pixel_statistics([])


def test_plain_values_and_back():
    wants = Preprocessing("image", 3, (16, 20), (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))
    assert Preprocessing.from_dict(wants.to_dict()) == wants
    assert str(wants) == "20x16 colour, mean 0.1 0.2 0.3, std 0.5 0.5 0.5"
    assert str(Preprocessing()) == "inputs as they are"
