"""Texts as tokens, by a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limbeck.errors import RequestError, require


def tokenize(
    parts: Mapping[str, Sequence[Sequence[Any]]], tokenizer: str | None, max_length: int
) -> dict[str, dict[str, Tensor]]:
    """Tokens of every part, padded to the longest text of all, so that no sample depends on its batch.

    Args:
        parts: by part one column of texts, or two columns that are read as pairs.
        tokenizer: a name, or a folder.
        max_length: tokens a text is cut to.

    Returns:
        By part the keyword inputs that the tokenizer makes (`input_ids`, `attention_mask`, ...), int64 [N,
        L].
    """
    if tokenizer is None:
        raise RequestError("data.text needs a tokenizer", fix='data.tokenizer = "FOLDER or NAME"')
    if not 1 <= len(parts["train"]) <= 2:
        raise RequestError(f"data.text names {len(parts['train'])} columns; one text or a pair can be read")
    made = load_tokenizer(tokenizer)
    encoded = {
        part: dict(
            made(
                *([_text(value) for value in column] for column in columns),
                truncation=True,
                max_length=max_length,
            )
        )
        for part, columns in parts.items()
    }
    longest = max(len(ids) for values in encoded.values() for ids in values["input_ids"])
    filler = {"input_ids": made.pad_token_id or 0, "token_type_ids": getattr(made, "pad_token_type_id", 0)}
    return {
        part: {name: _padded(rows, longest, filler.get(name, 0)) for name, rows in values.items()}
        for part, values in encoded.items()
    }


def load_tokenizer(tokenizer: str) -> Any:
    """A Hugging Face tokenizer by name or folder; `RequestError` where there is none."""
    transformers = require("transformers", "text", f"tokenizer {tokenizer!r}")
    path = Path(tokenizer).expanduser()
    if not path.is_dir() and (tokenizer.count("/") > 1 or tokenizer.startswith((".", "/", "~"))):
        raise RequestError(f"data.tokenizer = {tokenizer!r}: there is no such folder")
    try:
        return transformers.AutoTokenizer.from_pretrained(str(path) if path.is_dir() else tokenizer)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"the tokenizer {tokenizer!r} cannot be loaded, neither from a folder nor from the Hub",
            fix="a folder with tokenizer.json, or a name that can be reached from here",
        ) from error


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _padded(rows: Sequence[Sequence[int]], length: int, filler: int) -> Tensor:
    return torch.tensor([[*row, *[filler] * (length - len(row))] for row in rows], dtype=torch.int64)
