"""The command: verbs, streams, exit codes, messages, completion; nothing heavy is imported for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from limbeck import cli
from limbeck._run import completion, console
from limbeck._run.console import Manner
from limbeck._show import figures
from limbeck._show.tables import Table

ROOT = Path(__file__).parent.parent

#: The verbs in the order of `--help`, each with its own flags.
FLAGS = {
    "distill": ["--dry-run", "--output", "--resume", "--set"],
    "check": ["--explain", "--set"],
    "cache": ["--dry-run", "--set", "--verify"],
    "compare": ["--dry-run", "--jobs", "--output", "--seeds", "--set"],
    "report": ["--output"],
    "export": ["--int8", "--max-drop", "--preprocessing", "--to"],
    "measure": ["--channels", "--other-machine", "--output", "--size"],
    "predict": [],
    "recipes": ["--schema"],
    "methods": [],
    "layers": ["--channels", "--classes", "--size"],
}


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def limbeck(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back after the test

    def call(*words: str) -> Said:
        with pytest.raises(SystemExit) as done:
            cli.main(words)
        code = done.value.code
        out, err = capsys.readouterr()
        assert isinstance(code, int)
        return Said(code, out, err)

    return call


def process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "limbeck", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_verbs_and_their_flags() -> None:
    group = typer.main.get_command(cli.app)
    flags = {
        name: sorted(
            option
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and option != "--help"
        )
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }
    assert flags == FLAGS
    assert list(flags) == list(FLAGS)
    assert all(len(names) <= 6 for names in flags.values())


@pytest.mark.parametrize("verb", FLAGS)
def test_help_shows_a_worked_example_and_the_flags_of_every_verb(
    limbeck: Callable[..., Said], verb: str
) -> None:
    said = limbeck(verb, "--help")
    assert said.code == 0
    assert f"Example: limbeck {verb}" in said.out
    assert "--json" in said.out
    assert not said.err


def test_no_words_show_the_help_and_the_version_is_printed(limbeck: Callable[..., Said]) -> None:
    assert "limbeck distill quickstart" in limbeck().out
    assert limbeck("--version").out.startswith("limbeck 0.")


@pytest.mark.parametrize(
    ("words", "message", "fix"),
    [
        (["destil", "x"], "limbeck has no verb 'destil'", "distill"),
        (["zzz"], "limbeck has no verb 'zzz'", "limbeck --help"),
        (["distill"], "limbeck distill needs RECIPE|RUN", "limbeck distill --help"),
        (["distill", "x", "--ouput", "y"], "limbeck distill has no flag --ouput", "--output"),
        (["distill", "x", "--set"], "--set needs a value", "limbeck distill --help"),
        (
            ["methods", "kd", "kd"],
            "limbeck methods takes fewer words than were given",
            "limbeck methods --help",
        ),
        (["layers", "cnn-tiny", "--size", "big"], "--size needs a whole number", "limbeck layers --help"),
        (["--xyzzy"], "limbeck has no flag --xyzzy", "limbeck --help"),
        (["recipes", "quickstat"], "there is no recipe 'quickstat' in the package", "quickstart"),
        (["methods", "kdd"], "there is no method 'kdd'", "kd"),
        (["distill", "quikstart"], "there is no recipe quikstart: neither a file nor a name", "quickstart"),
    ],
)
def test_a_wrong_command_is_told_in_our_shape(
    limbeck: Callable[..., Said], words: list[str], message: str, fix: str
) -> None:
    said = limbeck(*words)
    assert said.code == 2
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith(f"error: {message}")
    assert lines[-1] == f"  fix: {fix}"
    assert len(lines) <= 4


def test_flags_of_every_verb_may_stand_anywhere(limbeck: Callable[..., Said]) -> None:
    for words in (("--json", "recipes"), ("recipes", "--json"), ("recipes", "-q", "--json", "-v")):
        assert "recipes" in json.loads(limbeck(*words).out)
    assert cli._manner(["distill", "x", "--set", "-q", "--debug"]) == (
        ["distill", "x", "--set", "-q"],
        Manner(debug=True),
    )


@pytest.mark.parametrize(
    "words",
    [("methods",), ("methods", "kd"), ("recipes",), ("recipes", "quickstart"), ("recipes", "--schema")],
)
def test_json_is_one_object_alone_on_stdout(limbeck: Callable[..., Said], words: tuple[str, ...]) -> None:
    said = limbeck(*words, "--json")
    assert said.code == 0
    assert said.err == ""
    found = json.loads(said.out)
    assert "schema" in found or "$schema" in found


def test_methods_list_what_a_reader_needs(limbeck: Callable[..., Said]) -> None:
    entries = json.loads(limbeck("methods", "--json").out)["methods"]
    assert {"kd", "semckd", "sskd", "peer_mutual_kd"} <= {entry["slug"] for entry in entries}
    for entry in entries:
        assert entry["slug"]
        assert entry["paper"]
        assert entry["tasks"]
        assert isinstance(entry["needs"], list)
    text = limbeck("methods", "kd").out
    assert "temperature" in text
    assert "Hinton" in text


def test_a_recipe_is_copied_by_redirection(limbeck: Callable[..., Said], tmp_path: Path) -> None:
    from limbeck.recipe import Recipe

    path = tmp_path / "mine.toml"
    path.write_text(limbeck("recipes", "quickstart").out, encoding="utf-8")
    assert Recipe.load(path) == Recipe.load("quickstart")


def test_help_and_lists_import_nothing_heavy() -> None:
    code = (
        "import sys, limbeck.cli\n"
        "verbs = ['--help'], ['methods'], ['methods', 'kd', '--json'], ['recipes'], ['distill', '--help']\n"
        "for words in verbs:\n"
        "    try: limbeck.cli.main(words)\n"
        "    except SystemExit as done: assert not done.code, done\n"
        "heavy = {'torch', 'numpy', 'accelerate', 'PIL', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("limbeck ", list(FLAGS)),
        ("limbeck distill qui", ["quickstart"]),
        ("limbeck compare fashion-kd fashion-se", ["fashion-semckd"]),
        ("limbeck methods sem", ["semckd"]),
        ("limbeck distill quickstart --set train.batch", ["train.batch_size="]),
        ("limbeck distill quickstart --set method.temp", ["method.temperature="]),
    ],
)
def test_completion_answers_without_torch(line: str, offered: list[str]) -> None:
    words = line.split()
    place = len(words) if line.endswith(" ") else len(words) - 1
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: sys.stderr.write('heavy' if 'torch' in sys.modules else 'light'))\n"
        "import limbeck.cli\n"
        "limbeck.cli.main([])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={
            **os.environ,
            "_LIMBECK_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(place),
        },
        check=False,
    )
    assert done.stdout.split() == offered
    assert done.stderr.endswith("light")


def test_completion_of_values_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").touch()
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "resolved.toml").touch()
    assert "mine.toml" in completion.complete_recipe("mi")
    assert completion.complete_recipe("runs/") == ["runs/a"]
    assert "method.name=kd" in [value for value, _ in completion.complete_key("method.name=k")]


def test_a_closed_pipe_is_no_error() -> None:
    line = f"{sys.executable} -m limbeck recipes --schema --json | head -c1"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "{"
    assert done.stderr == ""


def test_text_for_a_console_that_is_not_utf8_is_ascii() -> None:
    done = process("methods", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


def test_colours_only_on_a_terminal_without_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    for name in ("NO_COLOR", "CI", "TERM"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal()
    assert console.coloured(terminal)  # type: ignore[arg-type]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not console.coloured(terminal)  # type: ignore[arg-type]
    assert not console.steady(terminal)  # type: ignore[arg-type]
    monkeypatch.setenv("CI", "true")
    assert console.steady(terminal)  # type: ignore[arg-type]


def test_what_no_one_foresaw_is_one_line_unless_debug_is_given() -> None:
    code = (
        "import sys, limbeck.cli as cli\n"
        "cli.lists.listings.list_recipes = lambda: 1 / 0\n"
        "cli.main(sys.argv[1:])\n"
    )
    for words, lines in ((["recipes"], 2), (["recipes", "--debug"], 10)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) >= lines
        assert ("Traceback" in done.stderr) == ("--debug" in words)
        assert "ZeroDivisionError: division by zero" in done.stderr


def test_debug_adds_the_traceback_to_a_message(limbeck: Callable[..., Said]) -> None:
    said = limbeck("recipes", "nothing", "--debug")
    assert said.code == 2
    assert "Traceback" in said.err
    assert "error: there is no recipe 'nothing'" in said.err


def test_a_table_is_text_and_html_without_script() -> None:
    table = Table(("name", ">size"), [("a<b", "1"), ("c",)], ["note & more"])
    assert table.text().splitlines() == ["name  size", "a<b      1", "c", "note & more"]
    assert "a&lt;b" in table._repr_html_()
    assert "<script" not in table._repr_html_()
    folded = Table(("a", "b"), [("x", "one two three four five six seven eight")]).text(26)
    assert max(len(line) for line in folded.splitlines()) <= 26


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (figures.clock(34.4), "0:34"),
        (figures.clock(725), "12:05"),
        (figures.clock(19690), "5:28:10"),
        (figures.size(250_000), "0.25 MB"),
        (figures.size(12_300_000), "12 MB"),
        (figures.size(1.4e9), "1.4 GB"),
        (figures.latency(0.00019), "0.19 ms"),
        (figures.latency(0.0123), "12.3 ms"),
        (figures.score("classes", 0.8622), "86.2 %"),
        (figures.score("values", 0.8622), "0.862"),
        (figures.short(0.0008), "8.00e-04"),
    ],
)
def test_figures(made: str, text: str) -> None:
    assert made == text
