"""The runner of Markdown examples: what it runs, writes, leaves out and reports."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.readme import blocks, run_isolated, run_markdown

PAGE = """
Text with `code`.

```toml mine.toml
answer = 42
```

```python
import tomllib, pathlib
read = tomllib.loads(pathlib.Path("mine.toml").read_text())
```

```console
$ never-run
```

<!-- not run: needs pictures -->
```python
raise SystemExit("must not run")
```

1. In a list:

   ```python
   if read:
       answer = read["answer"]
   ```

```bash
echo done > said.txt
```
"""


def test_blocks_keep_order_language_line_and_indentation() -> None:
    found = list(blocks(PAGE))
    assert [block.language for block in found] == ["toml", "python", "console", "python", "bash"]
    assert found[0].target == "mine.toml"
    assert PAGE.splitlines()[found[1].line - 1] == "import tomllib, pathlib"
    assert found[3].text == 'if read:\n    answer = read["answer"]\n'


def test_blocks_run_in_order_and_share_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert run_markdown(page) == 3
    assert (tmp_path / "said.txt").read_text() == "done\n"


def test_a_failing_python_block_names_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = tmp_path / "page.md"
    page.write_text("one\n\n```python\n\nraise ValueError\n```\n")
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        run_markdown(page)
    assert caught.traceback[-1].lineno + 1 == 5


def test_a_failing_command_stops_with_its_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```bash\nfalse\ntrue\n```\n")
    with pytest.raises(SystemExit, match=r"page\.md:2: exit code 1"):
        run_markdown(page)


def test_an_open_block_is_refused() -> None:
    with pytest.raises(ValueError, match="line 2: a block that is not closed"):
        list(blocks("text\n```python\n1\n"))


def test_a_file_runs_isolated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.readme.ROOT", tmp_path)
    (tmp_path / "good.md").write_text("```python\nimport os\nassert os.listdir() == []\n```\n")
    (tmp_path / "bad.md").write_text("```python\nassert False, 'the reason'\n```\n")
    assert run_isolated(tmp_path / "good.md")
    assert not run_isolated(tmp_path / "bad.md")
    said = capsys.readouterr().out
    assert "passed good.md" in said
    assert "the reason" in said
    assert "FAILED bad.md" in said
