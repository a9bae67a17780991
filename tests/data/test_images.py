from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from limbeck.data.dataset import ArrayDataset
from limbeck.data.images import LazyImageDataset, find_unreadable, read_image, survey
from limbeck.errors import RequestError, RunError


def saved(
    path: Path, color: object = (10, 200, 30), size: tuple[int, int] = (6, 4), mode: str = "RGB"
) -> Path:
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]
    return path


def test_reads_files_and_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png")
    for source in (path, str(path), path.read_bytes()):
        pixels = read_image(source)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == (3, 4, 6)
        assert pixels[:, 0, 0].tolist() == [10, 200, 30]
    assert read_image(path, channels=1).shape == (1, 4, 6)


def test_covers_the_size_and_cuts_at_the_centre(tmp_path: Path) -> None:
    image = Image.new("L", (30, 10))
    image.paste(255, (10, 0, 20, 10))  # the middle third is white
    image.save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", channels=1, size=(10, 10))
    assert pixels.shape == (1, 10, 10)
    assert int(pixels.min()) == 255


def test_sixteen_bits_and_floats_become_eight(tmp_path: Path) -> None:
    Image.fromarray(np.full((2, 2), 51200, np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", channels=1).unique().tolist() == [200]
    assert read_image(tmp_path / "a.png").unique().tolist() == [200]
    Image.fromarray(np.full((2, 2), 99.0, np.float32)).save(tmp_path / "b.tiff")
    assert read_image(tmp_path / "b.tiff", channels=1).unique().tolist() == [99]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    for source in (tmp_path / "a.png", tmp_path / "absent.png"):
        with pytest.raises(RunError) as caught:
            read_image(source)
        assert caught.value.where == str(source)
    with pytest.raises(RunError, match="it is not a picture") as caught:
        read_image(b"hello", name="x.parquet, row 3")
    assert caught.value.where == "x.parquet, row 3"


def test_lazy_set_decodes_on_access(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{i}.png", (i, 0, 0)) for i in range(4)]
    data = LazyImageDataset(paths, torch.tensor([0, 1, 0, 1]))
    batch = data.batch([3, 1])
    assert batch["inputs"].shape == (2, 3, 4, 6)
    assert (batch["inputs"][:, 0, 0, 0] * 255).round().tolist() == [3, 1]
    assert batch["targets"].tolist() == [1, 1]
    assert batch["index"].tolist() == [3, 1]
    assert data.name(2) == str(paths[2])
    part = data.subset([2]).batch([0])
    assert part["index"].tolist() == [2]


def test_several_sizes_without_a_size_are_refused_with_names(tmp_path: Path) -> None:
    paths = [saved(tmp_path / "a.png"), saved(tmp_path / "b.png", size=(5, 5))]
    with pytest.raises(RequestError, match=r"6x4 .*a\.png.* 5x5 .*b\.png"):
        LazyImageDataset(paths).batch([0, 1])
    assert LazyImageDataset(paths, size=(4, 4)).batch([0, 1])["inputs"].shape == (2, 3, 4, 4)


def test_fingerprint_moves_with_the_folder_and_sees_changes(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
        for i in range(3):
            saved(folder / f"{i}.png", (i, 0, 0))

    def made(folder: Path, **settings: object) -> str:
        paths = sorted(folder.iterdir())
        return LazyImageDataset(paths, root=folder, **settings).fingerprint()  # type: ignore[arg-type]

    assert made(folders[0]) == made(folders[1])
    assert made(folders[0]) != made(folders[0], size=(4, 4))
    assert made(folders[0]) != made(folders[0], channels=1)
    saved(folders[1] / "1.png", (9, 9, 9))
    assert made(folders[0]) != made(folders[1])
    content = [path.read_bytes() for path in sorted(folders[0].iterdir())]
    assert LazyImageDataset(content).fingerprint() == LazyImageDataset(list(content)).fingerprint()
    assert LazyImageDataset(content).fingerprint() != LazyImageDataset(content[::-1]).fingerprint()


def test_find_unreadable_lists_all_through_views_of_a_set(tmp_path: Path) -> None:
    paths = [saved(tmp_path / f"{i}.png") for i in range(5)]
    paths[1].write_bytes(paths[1].read_bytes()[:-30])
    paths[4].write_bytes(b"")
    data = LazyImageDataset(paths)
    assert [(bad.position, bad.name) for bad in find_unreadable(data)] == [
        (1, str(paths[1])),
        (4, str(paths[4])),
    ]
    assert [bad.position for bad in find_unreadable(data.subset([4, 0]))] == [0]
    assert find_unreadable(ArrayDataset(torch.rand(3, 2))) == []


def test_survey_chooses_size_and_channels(tmp_path: Path) -> None:
    same = [saved(tmp_path / f"{i}.png") for i in range(3)]
    assert survey([same]).size == (4, 6)
    assert survey([same]).channels == 3
    assert survey([same]).notes == ()
    assert survey([same], side=8).size == (8, 8)
    mixed = [*same, saved(tmp_path / "b.png", size=(300, 100)), saved(tmp_path / "c.png", size=(300, 500))]
    assert survey([mixed]).size == (4, 4)
    assert "3 sizes" in survey([mixed]).notes[0]
    assert survey([mixed[:1], mixed[4:]]).size == (152, 152)
    large = [saved(tmp_path / "d.png", size=(300, 500)), saved(tmp_path / "e.png", size=(400, 500))]
    assert survey([large]).size == (224, 224)


def test_survey_calls_grey_only_what_is_grey_throughout(tmp_path: Path) -> None:
    grey = saved(tmp_path / "g.png", 7, mode="L").read_bytes()
    colour = saved(tmp_path / "c.png").read_bytes()
    assert survey([[grey] * 3]).channels == 1
    assert "one channel" in " ".join(survey([[grey] * 3]).notes)
    assert survey([[grey] * 3, [colour]]).channels == 3
    assert survey([[grey] * 4001 + [colour, grey]]).channels == 3  # beyond the pictures looked at first


def test_survey_turns_and_passes_over_what_it_cannot_open(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8)).save(buffer, "JPEG", exif=exif)
    assert survey([[buffer.getvalue(), b"broken"]]).size == (16, 8)
    assert survey([[b"broken"]]).channels == 3
