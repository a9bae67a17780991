from __future__ import annotations

import collections
import os

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from limbeck.errors import RequestError
from limbeck.models import Preprocessed, Preprocessing, load_weights


def network(seed=0, classes=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        collections.OrderedDict(
            conv=nn.Conv2d(1, 4, 3), bn=nn.BatchNorm2d(4), flat=nn.Flatten(), fc=nn.Linear(4, classes)
        )
    )


def equal(first, second):
    return all(torch.equal(a, b) for a, b in zip(first.values(), second.values(), strict=True))


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "bin"])
def test_weights_of_each_form_are_loaded(tmp_path, ending):
    wanted, given = network(1), network(2)
    file = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(given.state_dict(), file)
    assert load_weights(file, wanted) == []
    assert equal(wanted.state_dict(), given.state_dict())


def test_a_folder_means_its_model_file(tmp_path):
    given, wanted = network(1), network(2)
    (tmp_path / "student").mkdir()
    save_file(given.state_dict(), tmp_path / "student" / "model.safetensors")
    load_weights(tmp_path, wanted)
    assert equal(wanted.state_dict(), given.state_dict())
    (tmp_path / "empty").mkdir()
    with pytest.raises(RequestError, match="holds no model"):
        load_weights(tmp_path / "empty", wanted)


def test_wrappers_around_the_network_do_not_matter(tmp_path):
    given = network(1)
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    wrapped = Preprocessed(network(2), Preprocessing("image", 1))
    load_weights(tmp_path / "w.safetensors", wrapped)
    assert equal(wrapped.body.state_dict(), given.state_dict())
    torch.save(wrapped.state_dict(), tmp_path / "wrapped.pt")
    plain = network(3)
    assert "prefix 'body.'" in load_weights(tmp_path / "wrapped.pt", plain)[0]
    assert equal(plain.state_dict(), given.state_dict())


def test_a_network_with_a_part_named_module_is_loaded_as_it_is(tmp_path):
    given, wanted = nn.ModuleDict({"module": nn.Linear(2, 2)}), nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save(given.state_dict(), tmp_path / "w.pt")
    assert load_weights(tmp_path / "w.pt", wanted) == []
    assert equal(wanted.state_dict(), given.state_dict())


def test_half_precision_is_widened_and_said(tmp_path):
    given, wanted = network(1), network(2)
    halved = {k: v.half() if v.is_floating_point() else v for k, v in given.state_dict().items()}
    save_file(halved, tmp_path / "w.safetensors")
    (note,) = load_weights(tmp_path / "w.safetensors", wanted)
    assert "float16" in note
    assert wanted.fc.weight.dtype == torch.float32


def test_missing_batch_counters_are_no_mismatch(tmp_path):
    state = network(1).state_dict()
    del state["bn.num_batches_tracked"]
    torch.save(state, tmp_path / "w.pt")
    (note,) = load_weights(tmp_path / "w.pt", network(2))
    assert "1 batch counters" in note


def test_other_class_counts_are_named(tmp_path):
    save_file(network(1, classes=5).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match=r"fc.weight \[5, 4\] for \[3, 4\]") as caught:
        load_weights(tmp_path / "w.safetensors", network())
    assert caught.value.fix == "the file has 5 outputs, the data need 3"


def test_a_refused_file_leaves_the_network_as_it_was(tmp_path):
    state = network(1).state_dict()
    state["extra"] = state.pop("fc.bias")
    torch.save(state, tmp_path / "w.pt")
    wanted = network(2)
    before = {k: v.clone() for k, v in wanted.state_dict().items()}
    with pytest.raises(RequestError, match=r"1 missing, first fc.bias; 1 unexpected, first extra"):
        load_weights(tmp_path / "w.pt", wanted)
    assert equal(wanted.state_dict(), before)


def test_a_prefix_that_is_no_wrapper_is_named(tmp_path):
    torch.save({f"model.{k}": v for k, v in network().state_dict().items()}, tmp_path / "w.pt")
    with pytest.raises(RequestError) as caught:
        load_weights(tmp_path / "w.pt", network())
    assert "all names start with 'model'" in caught.value.fix


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_refused_by_name(tmp_path, ending, damage):
    file = tmp_path / f"weights.{ending}"
    (save_file if ending == "safetensors" else torch.save)(network().state_dict(), file)
    content = {"cut": file.read_bytes()[:-40], "empty": b"", "text": b"no weights at all " * 9}[damage]
    file.write_bytes(content)
    with pytest.raises(RequestError, match="is damaged") as caught:
        load_weights(file, network())
    assert str(file) in caught.value.message


def test_a_flipped_bit_in_an_archive_is_found(tmp_path):
    file = tmp_path / "weights.pt"
    given = network()
    torch.save(given.state_dict(), file)
    content = bytearray(file.read_bytes())
    content[content.find(given.fc.weight.detach().numpy().tobytes())] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(RequestError, match=r"checksum of .* is wrong"):
        load_weights(file, network())


def test_absent_files_get_near_names(tmp_path):
    torch.save(network().state_dict(), tmp_path / "teacher.pt")
    with pytest.raises(RequestError, match="there is no file") as caught:
        load_weights(tmp_path / "teachr.pt", network())
    assert caught.value.near == (str(tmp_path / "teacher.pt"),)


def test_what_is_no_file_of_weights_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("a")
    with pytest.raises(RequestError, match="no file of weights"):
        load_weights(tmp_path / "notes.txt", network())
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(RequestError, match="holds no weights: a list"):
        load_weights(tmp_path / "list.pt", network())
    torch.save({"epoch": 3}, tmp_path / "numbers.pt")
    with pytest.raises(RequestError, match="the keys epoch"):
        load_weights(tmp_path / "numbers.pt", network())


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning")
def test_a_program_is_no_file_of_weights(tmp_path):
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "program.pt")
    with pytest.raises(RequestError, match="TorchScript"):
        load_weights(tmp_path / "program.pt", nn.Linear(2, 2))


class Owned:
    """An object that makes a folder where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin", ".ckpt"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["alone", "beside", "deep"])
def test_what_only_code_could_make_is_refused_and_named(tmp_path, monkeypatch, ending, zipped, place):
    monkeypatch.chdir(tmp_path)
    state = network().state_dict()
    content = {
        "alone": Owned(),
        "beside": {**state, "more": Owned()},
        "deep": {"a": [{"b": Owned()}], "c": state},
    }
    file = tmp_path / f"weights{ending}"
    torch.save(content[place], file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(RequestError, match=r"holds \w+.mkdir .*to read that would be to run code"):
        load_weights(file, network())
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("ending", [".pt2", ".onnx", ".pkl", ".npy", ""])
def test_other_files_are_not_even_opened(tmp_path, monkeypatch, ending):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"weights{ending}"
    torch.save({"more": Owned()}, file)
    with pytest.raises(RequestError, match="is no file of weights"):
        load_weights(file, network())
    assert not (tmp_path / "owned").exists()


def test_a_pickle_under_the_name_of_safetensors_is_damaged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"more": Owned()}, tmp_path / "weights.safetensors")
    with pytest.raises(RequestError, match="is damaged"):
        load_weights(tmp_path / "weights.safetensors", network())
    assert not (tmp_path / "owned").exists()
