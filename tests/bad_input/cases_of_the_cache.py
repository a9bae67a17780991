"""Wrong requests for stored answers of the teacher."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.cases import Case


def _file_in_the_way(folder: Path) -> None:
    (folder / "taken").write_text("", encoding="utf-8")


CASES = [
    Case(
        "cache-required-with-fresh-views",
        'data.views = "fresh" shows a new view every epoch',
        'views = "auto"',
        sets=["cache.mode=require", "data.views=fresh"],
    ),
    Case(
        "cache-of-a-teacher-that-trains",
        "peer_mutual_kd trains its teacher along",
        'mode = "auto"',
        sets=["cache.mode=require", "method.name=peer_mutual_kd"],
    ),
    Case(
        "cache-top-k-too-large",
        "top_k = 11 of outputs with 10 entries",
        "leave top_k out",
        sets=["cache.mode=require", "cache.top_k=11"],
    ),
    Case(
        "cache-top-k-for-a-method-that-needs-all",
        "semckd needs the teacher's whole outputs",
        "leave top_k out",
        sets=["cache.mode=require", "cache.top_k=5", "method.name=semckd"],
    ),
    Case(
        "cache-verify-nothing",
        "there is no teacher cache in nowhere",
        "the folder that holds key.json",
        words=["cache", "--verify", "nowhere"],
    ),
    Case(
        "cache-verify-something-else",
        "is no teacher cache: it has no key.json",
        "another folder",
        words=["cache", "--verify", "."],
        files=_file_in_the_way,
    ),
    Case(
        "cache-neither-recipe-nor-verify",
        "limbeck cache needs a RECIPE, or --verify DIR",
        "limbeck cache --help",
        words=["cache"],
    ),
    Case(
        "cache-of-an-untrained-teacher",
        "the teacher cnn-tiny is yet to be trained: there is nothing to store",
        "trains it and stores its answers in passing",
        words=["cache", "mine.toml"],
    ),
    Case("views-below-zero", "data.views", "auto", sets=["data.views=-1"]),
    Case("cache-dtype", "cache.dtype", "float32", sets=["cache.dtype=float8"]),
    Case("cache-temperature", "cache.temperatures", "0", sets=["cache.temperatures=[0.0]"]),
]
