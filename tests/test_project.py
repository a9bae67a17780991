"""What holds for the project as a whole: where imports point, what they cost, how files are written."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

import limbeck

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "limbeck"
SOURCES = sorted(
    path
    for folder in ("limbeck", "tests", "tools", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A part (a module or folder at the top of the package) imports parts of its own row or of rows above it.
ROWS = (
    ("_clock", "_seal", "_show", "errors"),
    ("_findings",),
    ("losses", "record", "statistics"),
    ("_taps", "adaptors", "ensemble", "taps", "task"),
    ("data",),
    ("_fast",),
    ("teacher",),
    ("_cache", "cache"),
    ("method",),
    ("methods",),
    ("models",),
    ("engine",),
    ("_export", "_measure"),
    ("_contract", "contract", "integrations"),
    ("_recipe", "recipe", "recipes"),
    ("_report",),
    ("_run",),
    ("_check", "_compare"),
    ("run",),
    ("_cli",),
    ("cli",),
    ("__main__",),
)
ROW = {part: number for number, row in enumerate(ROWS) for part in row}

# Light: these answer `--help` and shell completion.
LIGHT = ("limbeck", "limbeck.errors", "limbeck.recipe", "limbeck.engine.settings", "limbeck.cli")
HEAVY = ("torch", "numpy", "accelerate", "safetensors", "matplotlib", "PIL", "jinja2")
OPTIONAL = sorted(
    {
        re.split(r"[\[><=; ]", requirement)[0].replace("-", "_")
        for extra in PROJECT["optional-dependencies"].values()
        for requirement in extra
    }
    - {"limbeck"}
)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every module or name that a file of the package imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively; write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def part_of(path: Path) -> str:
    """The part of the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def parts_imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and part of every import from the package itself, whether at the top or inside a function."""
    for line, name in imports(path):
        names = name.split(".")
        if names[0] == "limbeck" and names[1:] not in ([], ["__version__"]):
            yield line, names[1]


def test_every_part_of_the_package_has_its_row() -> None:
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert parts <= set(ROW), "say in ROWS what the new parts may import"


def test_imports_point_one_way() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} {part_of(path)} imports {part}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
        for line, part in parts_imported(path)
        if part not in ROW or ROW[part] > ROW[part_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_parts_do_not_import_each_other_in_a_circle() -> None:
    graph = {
        part: {
            found
            for path in PACKAGE.rglob("*.py")
            if path != PACKAGE / "__init__.py" and part_of(path) == part
            for _, found in parts_imported(path)
        }
        - {part}
        for part in ROW
    }
    while leaves := [part for part, needed in graph.items() if not needed & set(graph)]:
        for part in leaves:
            del graph[part]
    assert not graph, f"these import each other: {sorted(graph)}"


def loaded(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after some code."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_imports_nothing_heavy(module: str) -> None:
    assert not loaded(f"import {module}") & {*HEAVY, *OPTIONAL}


def test_public_names_need_no_optional_package() -> None:
    plain = loaded("import torch")
    code = "import torch, limbeck\nfor name in limbeck.__all__: getattr(limbeck, name)"
    assert not (loaded(code) - plain) & set(OPTIONAL)


@pytest.mark.parametrize("name", limbeck.__all__)
def test_public_name_resolves_and_is_documented(name: str) -> None:
    assert getattr(limbeck, name).__doc__


def test_public_names_are_sorted_and_each_has_one_home() -> None:
    assert limbeck.__all__ == sorted(limbeck.__all__)
    assert list(limbeck._HOME) == limbeck.__all__
    assert set(limbeck.__all__) <= set(dir(limbeck))
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    typed = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert {name: typed.get(name) for name in limbeck._HOME} == limbeck._HOME


def test_no_public_name_is_hidden_by_a_module() -> None:
    assert not [name for name in limbeck.__all__ if find_spec(f"limbeck.{name}")]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'destil'"):
        limbeck.destil  # noqa: B018


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_file_is_ascii_and_at_most_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    assert lines <= 400
    assert text.isascii()


# What costs readers or users later, and what to write instead; looked for in the code of the package.
SMELLS = {
    r"\bTODO\b|\bFIXME\b|\bXXX\b": "do it, or open an issue",
    r"\.cuda\(": "`.to(inputs.device)`",
    r"\bhasattr\(": "an abstract member, or a type",
    r"isinstance\(method,": "a member of `Method`; no method is special",
    r"method(\.card)?\.slug ==|method ==": "a member of `Method`; no method is special",
    r"(?<![\w.~/])/(home|root|tmp|mnt|work|Users|opt)/": "a path of one machine; take it as an argument",
    r"weights_only=False|pickle\.load": "files from elsewhere are data: safetensors, or weights_only=True",
}


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.is_relative_to(PACKAGE)],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_file_has_no_smells(path: Path) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}  (better: {better})"
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for pattern, better in SMELLS.items()
        if re.search(pattern, line)
    ]
    assert not found, "\n".join(found)


def test_constraints_pin_every_dependency() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["optional-dependencies"]
    named = [
        *PROJECT["dependencies"],
        *(need for name in extras if name != "trackers" for need in extras[name]),
    ]
    names = {re.split(r"[\[><=; ]", need)[0].lower().replace("_", "-") for need in named} - {"limbeck"}
    assert not names - pinned


def test_the_changelog_names_this_version_or_what_is_unreleased() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", limbeck.__version__)
