"""Weights from files, read as data: safetensors, or PyTorch files that hold nothing but plain values.

Nothing in a file is executed. A file fits a network whole or it is refused: no tensor is passed over.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from limbeck.errors import RequestError, nearest
from limbeck.models import intact
from limbeck.models.intact import damaged

State = dict[str, Tensor]

#: What wrappers put before every name: data parallelism, compilation, our preprocessing.
WRAPPERS = ("module.", "_orig_mod.", "body.")
EXTENSIONS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
#: The file of weights in a student's folder, and in those of timm and Hugging Face.
FILE = "model.safetensors"

#: Names listed in a message.
_SHOWN = 3
#: How deep weights may lie in a training checkpoint.
_DEPTH = 4


def load_weights(path: str | Path, model: nn.Module) -> list[str]:
    """Loads the weights of a file into a network; all of them or none.

    Args:
        path: a .safetensors file, a PyTorch file, or a folder with model.safetensors. In a training
            checkpoint the weights are found; where there are several, `FILE:KEY` says which ("last.pt:ema").
        model: the network; wrappers around it do not matter.

    Returns:
        What was done beside plain loading, a sentence each: the key taken, prefixes stripped, types widened.

    Raises:
        RequestError: no such file, a damaged one, one that would need code to be run, several weights in it,
            or weights that do not fit; the network is as it was.
    """
    return fill(model, *locate(path))


def fill(model: nn.Module, file: Path, key: str | None = None) -> list[str]:
    """As `load_weights`, of a file that `locate` found, or whose folder was checked already."""
    content = read_content(file)
    wanted = model.state_dict()
    where, state = _choose(content, key, wanted, file)
    state, notes = _fitted(state, wanted, file, where)
    model.load_state_dict(state, strict=True)
    return [f"the weights are those under {where!r} in {file.name}", *notes] if where else notes


def locate(path: str | Path) -> tuple[Path, str | None]:
    """The file that a path means, and the key after its last colon, if there is one.

    Raises:
        RequestError: there is no such file.
    """
    text = str(path)
    file, key = Path(text).expanduser(), None
    if not file.exists() and ":" in text:
        before, _, after = text.rpartition(":")
        if Path(before).expanduser().exists():
            file, key = Path(before).expanduser(), after
    if file.is_dir():
        inside = [file / FILE, file / "student" / FILE]
        found = next((candidate for candidate in inside if candidate.is_file()), None)
        if found is None:
            raise RequestError(f"the folder {file} holds no {FILE}", fix="name the file with the weights")
        file = found
    if not file.is_file():
        beside = [str(other) for other in file.parent.glob("*") if other.suffix in EXTENSIONS]
        raise RequestError(f"there is no file {file}", near=nearest(str(file), beside))
    if file.name == FILE and intact.is_student(file.parent):
        intact.check(file.parent)
    return file, key


def read_content(file: Path) -> Any:
    """What a file holds, without running code: a state of a safetensors file, or plain nested values.

    Raises:
        RequestError: it is damaged, or it holds objects that only code could make.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except (SafetensorError, OSError, ValueError) as error:
            raise damaged(file, str(error)) from error
    if file.suffix not in EXTENSIONS:
        raise RequestError(f"{file} is no file of weights", fix=f"one that ends with {', '.join(EXTENSIONS)}")
    _refuse_code(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecated storages; nothing to do for our user
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _blocked(file, _named_global(str(error))) from None
    except (RuntimeError, EOFError, KeyError, ValueError, OSError, AttributeError, IndexError) as error:
        raise damaged(file, str(error).partition("\n")[0] or "it is cut short") from error


def read_state(file: Path) -> State:
    """The weights of a file that holds nothing else."""
    content = read_content(file)
    found = _candidates(content)
    if len(found) != 1:
        raise RequestError(f"{file} holds {len(found)} sets of weights; needed one")
    return next(iter(found.values()))


def _refuse_code(file: Path) -> None:
    """Refuses archives with wrong checksums, TorchScript, and types that only code could make."""
    if not zipfile.is_zipfile(file):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            wrong = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise damaged(file, str(error)) from error
    if wrong is not None:
        raise damaged(file, f"the checksum of {wrong} is wrong")
    if any(name.endswith("constants.pkl") for name in names):
        raise RequestError(
            f"{file} is a TorchScript program, not weights",
            fix="save the weights alone: safetensors.torch.save_file(network.state_dict(), FILE)",
        )
    try:
        blocked = torch.serialization.get_unsafe_globals_in_checkpoint(file)
    except (ValueError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise damaged(file, str(error).partition("\n")[0]) from error
    if blocked:
        raise _blocked(file, blocked)


def _blocked(file: Path, types: Sequence[str]) -> RequestError:
    if not types:
        return damaged(file, "it holds neither plain values nor types that could be named")
    return RequestError(
        f"{file} holds {', '.join(types[:_SHOWN])} beside or around its weights; to read that would be to "
        "run code, so it is not read",
        fix="where it was written, save the weights alone: "
        'torch.save(network.state_dict(), "weights.pt"), or safetensors.torch.save_file',
    )


def _named_global(message: str) -> list[str]:
    """The type that torch names when it refuses one."""
    for mark in ("Unsupported global: GLOBAL ", "unsupported GLOBAL ", "Unsupported class "):
        if mark in message:
            return [message.partition(mark)[2].split()[0].strip(".,'\"")]
    return []


def _choose(content: Any, key: str | None, wanted: State, file: Path) -> tuple[str, State]:
    """The weights to take from a file and their key: those named, else the only ones, else those that fit.

    Raises:
        RequestError: it holds none, or none under this key, or several that fit.
    """
    found = _candidates(content)
    if not found:
        raise RequestError(f"{file} holds no weights: {_described(content)}")
    if key is not None:
        if key not in found:
            raise RequestError(f"{file} has no weights {key!r}", near=nearest(key, found) or sorted(found))
        return key, found[key]
    if len(found) == 1:
        return next(iter(found.items()))
    named = {name: _stripped(state, wanted)[0] for name, state in found.items()}
    fit = [name for name, state in named.items() if _mismatch(state, wanted) is None]
    if not fit:  # the likeliest is refused with what does not fit
        likeliest = max(named, key=lambda name: len(set(named[name]) & set(wanted)))
        return likeliest, found[likeliest]
    if len(fit) > 1:
        raise RequestError(
            f"{file} holds {len(fit)} sets of weights that fit: {', '.join(fit)}",
            fix=" or ".join(f'weights = "{file}:{name}"' for name in fit[:2]),
        )
    return fit[0], found[fit[0]]


def _candidates(content: Any, name: str = "", depth: int = _DEPTH) -> dict[str, State]:
    """Sets of weights in nested mappings, by the dotted key under which they lie; "" is the whole file."""
    if not isinstance(content, Mapping) or not content or depth == 0:
        return {}
    if all(isinstance(key, str) for key in content) and any(
        isinstance(value, Tensor) for value in content.values()
    ):
        tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
        others = [value for key, value in content.items() if key not in tensors]
        if not any(isinstance(value, Mapping) for value in others):
            return {name: tensors}
    found: dict[str, State] = {}
    for key, value in content.items():
        if isinstance(key, str):
            found |= _candidates(value, f"{name}.{key}" if name else key, depth - 1)
    return found


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        return (
            f"a mapping with the keys {', '.join(map(str, list(content)[:5]))}" if content else "it is empty"
        )
    return f"a {type(content).__name__}"


def _fitted(state: State, wanted: State, file: Path, where: str) -> tuple[State, list[str]]:
    """A state with exactly the names and shapes of another one, and what was done to it.

    Raises:
        RequestError: it does not fit; with the first names that are missing, unexpected or of other shape.
    """
    state, notes = _stripped(state, wanted)
    state = _with_tied(state, wanted)
    problem = _mismatch(state, wanted)
    if problem is not None:
        place = f" ({where!r})" if where else ""
        raise RequestError(
            f"the weights in {file}{place} do not fit the model: {problem}", fix=_hint(state, wanted)
        )
    counters = [name for name in wanted if name not in state]
    if counters:
        notes.append(f"{len(counters)} batch counters are not in {file.name}; they do not change outputs")
        state |= {name: wanted[name] for name in counters}
    types = {
        str(value.dtype).removeprefix("torch.")
        for name, value in state.items()
        if value.is_floating_point() and value.dtype != wanted[name].dtype
    }
    if types:
        notes.append(
            f"the weights in {file.name} are stored as {', '.join(sorted(types))} and were converted"
        )
    return state, notes


def _stripped(state: State, wanted: State) -> tuple[State, list[str]]:
    """A state under the names of another one: wrappers' prefixes that all its names share go or come."""
    bare, prefix = _bare(state)
    _, own = _bare(wanted)
    if prefix == own or not set(state) - set(wanted):
        return state, []
    notes = [f"the prefix {prefix!r} of all names in the file was stripped"] if prefix else []
    return {f"{own}{name}": value for name, value in bare.items()}, notes


def _bare(state: Mapping[str, Tensor]) -> tuple[State, str]:
    """A state without the wrappers' prefixes that all its names share, and these prefixes."""
    bare, prefix = dict(state), ""
    while bare:
        shared = next((w for w in WRAPPERS if all(name.startswith(w) for name in bare)), None)
        if shared is None:
            break
        bare = {name.removeprefix(shared): value for name, value in bare.items()}
        prefix += shared
    return bare, prefix


def _with_tied(state: State, wanted: State) -> State:
    """Names that share their memory with one in the file are filled from it: tied tensors are stored once."""
    places: dict[tuple[Any, ...], str] = {}
    for name, value in wanted.items():
        if name in state and value.numel():
            places.setdefault(_place(value), name)
    tied = {
        name: state[places[_place(value)]]
        for name, value in wanted.items()
        if name not in state and value.numel() and _place(value) in places
    }
    return {**state, **tied}


def _place(value: Tensor) -> tuple[Any, ...]:
    return (value.device, value.data_ptr(), value.shape, value.stride())


def _mismatch(state: State, wanted: State) -> str | None:
    """What does not fit, or None."""
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    missing = [name for name in missing if name not in _with_tied(state, wanted)]
    unexpected = [name for name in state if name not in wanted]
    shapes = [
        f"{name} {list(state[name].shape)} for {list(wanted[name].shape)}"
        for name in wanted
        if name in state and state[name].shape != wanted[name].shape
    ]
    parts = [
        f"{len(names)} {what}, first {', '.join(names[:_SHOWN])}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if names
    ]
    return "; ".join(parts) or None


def _hint(state: State, wanted: State) -> str:
    """The likely fix for weights that do not fit."""
    wrong = [name for name in wanted if name in state and state[name].shape != wanted[name].shape]
    head = list(wanted)[-1].rpartition(".")[0]
    if wrong and set(state) == set(wanted) and {name.rpartition(".")[0] for name in wrong} == {head}:
        return (
            f"the file has {state[wrong[0]].shape[:1].numel()} outputs, the data need {len(wanted[wrong[0]])}"
        )
    first = {name.partition(".")[0] for name in state}
    if len(first) == 1 and set(state) - set(wanted):
        name = first.pop()
        return f"all names start with {name!r}: save the network inside alone, network.{name}.state_dict()"
    return "the model and the options that the weights were trained with"


def load_but_head(model: nn.Module, state: State, spec: str) -> list[str]:
    """Loads published weights; a last layer for another number of classes stays as it is, and that is said.

    Raises:
        RequestError: more than the last layer does not fit.
    """
    wanted = model.state_dict()
    wrong = [name for name in wanted if name not in state or state[name].shape != wanted[name].shape]
    head = list(wanted)[-1].rpartition(".")[0]
    if any(name.rpartition(".")[0] != head for name in wrong) or set(state) - set(wanted):
        raise RequestError(f"the published weights of {spec} do not fit: {_mismatch(state, wanted)}")
    model.load_state_dict({**state, **{name: wanted[name] for name in wrong}}, strict=True)
    return [f"{spec}: the last layer, {head}, starts at random"] if wrong else []
