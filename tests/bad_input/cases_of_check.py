"""Wrong requests to `check`; what is wrong in a recipe is a finding, see tests/check/faults.py."""

from __future__ import annotations

from tests.bad_input.cases import Case

CASES = [
    Case(
        "check-nothing",
        "limbeck check needs a RECIPE, or --explain CODE",
        "limbeck check --help",
        words=["check"],
    ),
    Case(
        "check-recipe-and-code",
        "limbeck check needs a RECIPE, or --explain CODE",
        "limbeck check --help",
        words=["check", "mine.toml", "--explain", "K104"],
    ),
    Case(
        "check-unknown-code",
        "there is no finding 'K1O4'",
        "limbeck check --explain K1",
        words=["check", "--explain", "K1O4"],
    ),
    Case("check-no-such-recipe", "there is no recipe quikstart", "quickstart", words=["check", "quikstart"]),
    Case(
        "check-unknown-key",
        "unknown key method.temprature",
        "temperature",
        "--set method.temprature=2",
        words=["check", "mine.toml", "--set", "method.temprature=2"],
    ),
    Case(
        "check-not-toml",
        "not valid TOML",
        "keep one of the two",
        "mine.toml:2:1",
        edit=("[data]", 'name = "twice"\n[data]'),
        words=["check", "mine.toml"],
    ),
    Case(
        "check-no-such-data",
        "there is no data source 'fashion-smal'",
        "fashion-small",
        "mine.toml:3:10",
        edit=('"fashion-small"', '"fashion-smal"'),
        words=["check", "mine.toml"],
    ),
    Case(
        "check-no-such-model",
        "there is no built-in network 'cnn-tny'",
        "cnn-tiny",
        edit=('model = "cnn-tiny"\nweights', 'model = "cnn-tny"\nweights'),
        words=["check", "mine.toml"],
    ),
]
