from __future__ import annotations

import json

import pytest

from limbeck._seal import seal, seal_lines, text_of, unseal, unseal_lines
from limbeck.errors import RequestError

OBJECT = {
    "name": "a",
    "seal of": {"seal": "x", "text": '"seal": "'},
    "numbers": [1, 2.5, None],
    "u": "\u00e9",
}


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_comes_back_and_is_plain_json(indent):
    text = seal(OBJECT, indent)
    assert unseal(text, "a", "b") == OBJECT
    assert {**OBJECT, "seal": json.loads(text)["seal"]} == json.loads(text)


def test_sealed_again_it_is_the_same():
    again = seal({**OBJECT, "seal": "of before"})
    assert unseal(again, "a", "b") == OBJECT


def test_lines_come_back():
    for text in ("", "a = 1\n", 'b = "# seal 0"\n'):
        assert unseal_lines(seal_lines(text), "a", "b") == text


def test_every_other_character_is_found():
    for text, read in ((seal(OBJECT), unseal), (seal_lines("a = 1\nb = 2\n"), unseal_lines)):
        for position in range(len(text)):
            for changed in ("", "0", "f", "\n", "\r\n", " ", text[position] * 2):
                if changed == text[position]:
                    continue
                with pytest.raises(RequestError, match=r"^x is damaged") as caught:
                    read(text[:position] + changed + text[position + 1 :], "x", "copy it")
                assert caught.value.fix == "copy it"


def test_what_is_no_text_is_damaged(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\r\n")
    with pytest.raises(RequestError, match="is damaged"):
        text_of(tmp_path / "a", "copy it")
    (tmp_path / "a").write_bytes(b"1\r\n")
    assert text_of(tmp_path / "a", "") == "1\r\n"
