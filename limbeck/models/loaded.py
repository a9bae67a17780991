"""A finished student that is ready to predict: from pictures, rows, sentences or tensors to named answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from limbeck.errors import RequestError
from limbeck.models.building import Architecture
from limbeck.models.preprocessing import Preprocessed, Preprocessing
from limbeck.task import declared

#: A class and its probability, or a value's name and the value.
Answer = tuple[str, float]


@dataclass
class Loaded:
    """A student from its folder.

    Attributes:
        network: in eval; takes inputs as the training data gave them (pixels 0 to 1, encoded rows, ids).
        classes: names of its outputs.
        kind: what the output means: "classes", "labels" or "values".
        reading: how a raw sample becomes an input: `kind` is "image", "row", "text", "tokens" or "tensor".
        architecture: what built it.
        folder: where it lies.
        notes: what is worth knowing of how it was loaded, a sentence each.
    """

    network: Preprocessed
    classes: list[str]
    kind: str
    reading: Mapping[str, Any]
    architecture: Architecture
    folder: Path
    notes: list[str] = field(default_factory=list)

    @property
    def preprocessing(self) -> Preprocessing:
        """What the network wants of its inputs."""
        return self.network.preprocessing

    def __repr__(self) -> str:
        number = len(self.classes)
        return (
            f"student {self.architecture.spec} from {self.folder}: {number} output{'s' * (number != 1)}, "
            f"{self.preprocessing}"
        )

    def predict(self, sample: Any) -> list[Answer] | list[list[Answer]]:
        """What the student says, likeliest first.

        Args:
            sample: of a student for pictures: a path, a Pillow picture, an array [H, W] or [H, W, C] (bytes,
                or 0 to 1), a tensor [C, H, W]; of one for rows: a mapping by column, or values in the order
                of the columns; of one for text: a sentence, or a pair in a tuple. Several in a list, or a
                tensor with a leading dimension. Pictures are brought to the size of the training data.

        Returns:
            Pairs of class and probability (of value's name and value); for several samples a list of them.

        Raises:
            RequestError: the sample is not what this student takes.
        """
        inputs, several = self.inputs(sample)
        answers = [self.answer(row) for row in self.logits(inputs)]
        return answers if several else answers[0]

    def logits(self, inputs: Any) -> Tensor:
        """The outputs [B, K] for a batch of inputs as the training data gave them."""
        device = next((p.device for p in self.network.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            if isinstance(inputs, Mapping):
                given = {name: value.to(device) for name, value in inputs.items()}
                output = self.network(**declared(self.network, given))
            else:
                output = self.network(inputs.to(device))
        logits: Tensor = output if isinstance(output, Tensor) else output.logits
        return logits.float().cpu()

    def answer(self, row: Tensor) -> list[Answer]:
        """The outputs [K] for one sample as named answers, likeliest first."""
        if self.kind == "values":
            target = self.reading.get("target", {})
            values = row * target.get("std", 1.0) + target.get("mean", 0.0)
            names = [target["name"]] if "name" in target else self.classes
            return list(zip(names, values.tolist(), strict=False))
        if self.kind not in ("classes", "labels"):
            raise RequestError(f"outputs of kind {self.kind!r} are not named", fix="use .network")
        shares = row.softmax(0) if self.kind == "classes" else row.sigmoid()
        order = shares.argsort(descending=True, stable=True).tolist()
        return [(self.classes[number], float(shares[number])) for number in order]

    def inputs(self, sample: Any) -> tuple[Any, bool]:
        """A sample as a batch of inputs of the network, and whether it was several; see `predict`."""
        kind = self.reading["kind"]
        if kind == "image":
            return self._pictures(sample)
        if kind == "row" and not isinstance(sample, Tensor):
            return self._rows(sample)
        if kind == "text" and not isinstance(sample, Mapping):
            several = isinstance(sample, list)
            return self._texts(sample if several else [sample]), several
        if isinstance(sample, Mapping):
            return {name: torch.as_tensor(value) for name, value in sample.items()}, True
        tensor = torch.as_tensor(sample)
        if tensor.dtype == torch.float64:
            tensor = tensor.float()
        single = tensor.ndim == (1 if kind in ("row", "tokens") else len(self.architecture.size) + 1)
        return (tensor[None], False) if single else (tensor, True)

    # -- pictures --------------------------------------------------------------------------------------

    def _pictures(self, sample: Any) -> tuple[Tensor, bool]:
        if isinstance(sample, Tensor) and sample.ndim == 4:
            return self._resized(_unit(sample)), True
        if isinstance(sample, np.ndarray) and sample.ndim == 4:
            sample = list(sample)
        if isinstance(sample, list):
            if not sample:
                raise RequestError("no picture to predict")
            return torch.cat([self._picture(one) for one in sample]), True
        return self._picture(sample), False

    def _picture(self, sample: Any) -> Tensor:
        """One picture as an input [1, C, H, W], read as the training data were."""
        from limbeck.data.images import pixels_of, read_image

        channels, size = self.reading["channels"], tuple(self.reading["size"])
        if isinstance(sample, np.ndarray) and sample.dtype == np.uint8:
            sample = Image.fromarray(sample[..., 0] if sample.shape[2:] == (1,) else sample)
        if isinstance(sample, (str, Path, bytes)):
            return _unit(read_image(sample, channels=channels, size=size))[None]
        if isinstance(sample, Image.Image):
            return _unit(pixels_of(sample, channels=channels, size=size))[None]
        if isinstance(sample, np.ndarray) and sample.ndim in (2, 3):
            tensor = torch.from_numpy(np.ascontiguousarray(sample))
            sample = tensor[None] if sample.ndim == 2 else tensor.permute(2, 0, 1)
        if isinstance(sample, Tensor) and sample.ndim == 3:
            return self._resized(_unit(sample)[None])
        raise RequestError(
            f"a {type(sample).__name__} is no picture; needed a path, a Pillow picture, an array [H, W(, C)] "
            "or a tensor [C, H, W]"
        )

    def _resized(self, pixels: Tensor) -> Tensor:
        size = tuple(self.reading["size"])
        if tuple(pixels.shape[2:]) == size:
            return pixels
        return F.interpolate(pixels, size, mode="bilinear", antialias=True)

    # -- rows and texts --------------------------------------------------------------------------------

    def _rows(self, sample: Any) -> tuple[Tensor, bool]:
        from limbeck.data.rows import RowEncoder

        encoder = RowEncoder.from_plain(self.reading["columns"])
        names = [column.name for column in encoder.columns]
        array = sample.tolist() if isinstance(sample, np.ndarray) else sample
        several = isinstance(array, Sequence) and isinstance(array[0], (Mapping, list, tuple))
        rows = [_by_name(row, names) for row in (array if several else [array])]
        for row in rows:
            missing = [name for name in names if name not in row]
            if missing:
                raise RequestError(
                    f"the row lacks {', '.join(missing[:5])}", fix="None where it is not known"
                )
        return encoder.encode({name: [row[name] for row in rows] for name in names}), several

    def _texts(self, texts: Sequence[Any]) -> dict[str, Tensor]:
        from limbeck.data.text import tokenize

        columns = list(zip(*[text if isinstance(text, tuple) else (text,) for text in texts], strict=True))
        own = self.folder / "tokenizer_config.json"
        tokenizer = str(self.folder) if own.is_file() else self.reading["tokenizer"]
        return tokenize({"train": columns}, tokenizer, self.reading["max_length"])["train"]


def _by_name(row: Any, names: Sequence[str]) -> Mapping[str, Any]:
    if isinstance(row, Mapping):
        return row
    if isinstance(row, (list, tuple)) and len(row) == len(names):
        return dict(zip(names, row, strict=True))
    given = f"{len(row)} values" if isinstance(row, (list, tuple)) else f"a {type(row).__name__}"
    raise RequestError(f"{given} for a row of {len(names)} columns: {', '.join(names[:5])}")


def _unit(pixels: Tensor) -> Tensor:
    """Bytes as pixels from 0 to 1; others as they are."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
