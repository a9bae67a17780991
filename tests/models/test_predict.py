"""A loaded student answers for pictures in every form that people have them in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.errors import RequestError, RunError
from limbeck.models import load, prepare, save_student


@pytest.fixture(params=[1, 3])
def student(request, tmp_path):
    channels = request.param
    made = prepare("cnn-tiny", num_classes=3, inputs=torch.rand(1, channels, 12, 12))
    reading = {"kind": "image", "channels": channels, "size": [12, 12]}
    save_student(
        tmp_path / "s", made.network, architecture=made.architecture, classes=["a", "b", "c"], reading=reading
    )
    return load(tmp_path / "s")


def test_a_picture_gives_the_same_answer_in_every_form(student, tmp_path):
    channels = student.reading["channels"]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, channels), dtype=np.uint8)
    picture = Image.fromarray(pixels[..., 0] if channels == 1 else pixels)
    picture.save(tmp_path / "p.png")
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    with torch.inference_mode():
        shares = student.network(tensor[None].float() / 255).softmax(1)[0]
    order = shares.argsort(descending=True).tolist()
    expected = [("abc"[i], pytest.approx(float(shares[i]), abs=1e-6)) for i in order]
    forms = [
        picture,
        tmp_path / "p.png",
        str(tmp_path / "p.png"),
        (tmp_path / "p.png").read_bytes(),
        pixels,
        pixels.astype(np.float32) / 255,
        tensor,
        tensor.float() / 255,
    ]
    if channels == 1:
        forms += [pixels[..., 0], pixels[..., 0] / 255]
    for form in forms:
        assert student.predict(form) == expected
    for several in (forms, torch.stack([tensor, tensor]), np.stack([pixels, pixels])):
        assert all(answer == expected for answer in student.predict(several))


def test_other_sizes_and_colours_are_brought_to_those_of_the_data(student):
    for form in (
        Image.new("RGBA", (30, 20), "red"),
        Image.new("L", (5, 9), 100),
        np.zeros((40, 30, 3), dtype=np.uint8),
        torch.rand(student.reading["channels"], 50, 40),
    ):
        answer = student.predict(form)
        assert sum(share for _, share in answer) == pytest.approx(1)


def test_it_says_what_it_is(student):
    text = repr(student)
    assert text.startswith("student cnn-tiny from ")
    assert "3 outputs" in text


def test_what_is_no_picture_is_refused(student, tmp_path):
    with pytest.raises(RequestError, match="a int is no picture"):
        student.predict(3)
    with pytest.raises(RequestError, match="no picture to predict"):
        student.predict([])
    (tmp_path / "text.png").write_text("no")
    with pytest.raises(RunError, match="cannot be read"):
        student.predict(tmp_path / "text.png")
