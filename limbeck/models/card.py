"""The model card of a student, `README.md`: what is known of it, and no heading without a fact."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a run knows of its student; everything may be left out.

    Args:
        name: title of the card.
        summary: one or two sentences below the title.
        rows: the closing table, one mapping a row with equal keys, as `{"": "student", "test": "86.2 %"}`.
        table_note: what the table says of how it was measured.
        data: sentences or lines about the data.
        dataset: its name, for the index of results.
        method: lines about the method: name, paper, hyper-parameters.
        limits: what the student is not for, what was not measured.
        base_model: names on the Hub of the models that it comes from.
        language: codes of its languages, for text.
        license: identifier of its licence.
        tags: further words to find it by.
        results: measured scores, as `{"metric": "accuracy", "value": 0.86, "split": "test"}`.
        version: version of limbeck.
    """

    name: str | None = None
    summary: str | None = None
    rows: Sequence[Mapping[str, str]] = ()
    table_note: str | None = None
    data: Sequence[str] = ()
    dataset: str | None = None
    method: Sequence[str] = ()
    limits: Sequence[str] = ()
    base_model: Sequence[str] = ()
    language: Sequence[str] = ()
    license: str | None = None
    tags: Sequence[str] = ()
    results: Sequence[Mapping[str, Any]] = field(default_factory=tuple)
    version: str | None = None


#: The task's name on the Hub by what the inputs are and what the output means.
_PIPELINES = {
    ("image", "classes"): "image-classification",
    ("row", "classes"): "tabular-classification",
    ("row", "values"): "tabular-regression",
    ("text", "classes"): "text-classification",
    ("tokens", "classes"): "text-classification",
}


def write_card(
    facts: CardFacts, *, library: str, inputs: str, kind: str, classes: Sequence[str], loading: Sequence[str]
) -> str:
    """The text of a card: front matter that the Hub reads, then the sections that have facts.

    Args:
        facts: what is known.
        library: that loads it: "limbeck", "timm" or "transformers".
        inputs: "image", "row", "text", "tokens" or "tensor".
        kind: what the output means, as `Task.kind`.
        classes: names of the outputs.
        loading: lines of Python that load it, for further libraries.
    """
    name = facts.name or "student"
    pipeline = _PIPELINES.get((inputs, kind))
    sections = [
        ("", [facts.summary] if facts.summary else []),
        ("Results", _table(facts.rows, facts.table_note)),
        ("Loading", _code(loading)),
        ("Classes", _listed(classes)),
        ("Data", _lines(facts.data)),
        ("Method", _lines([*facts.method, *_made_by(facts)])),
        ("Limits", _lines(facts.limits)),
    ]
    body = [f"# {plain(name)}", ""]
    for heading, lines in sections:
        if lines:
            body += [*([f"## {heading}", ""] if heading else []), *lines, ""]
    return "\n".join([*_front_matter(facts, name, library, pipeline), *body]).rstrip() + "\n"


def plain(text: str) -> str:
    """Text that comes from data, on one line, without meaning in Markdown or HTML."""
    text = " ".join(str(text).split())
    for mark in "\\`*_[]<>|#":
        text = text.replace(mark, f"\\{mark}" if mark != "<" else "&lt;")
    return text


def _made_by(facts: CardFacts) -> list[str]:
    return [f"made with limbeck {facts.version}"] if facts.version else []


def _front_matter(facts: CardFacts, name: str, library: str, pipeline: str | None) -> list[str]:
    """YAML between two lines of dashes; every value is written as JSON, which is YAML too."""
    entries: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": pipeline,
        "license": facts.license,
        "language": list(facts.language),
        "base_model": list(facts.base_model),
        "datasets": [facts.dataset] if facts.dataset and "/" in facts.dataset else [],
        "tags": ["knowledge-distillation", "limbeck", *facts.tags],
        "model-index": _index(facts, name, pipeline),
    }
    lines = [f"{key}: {json.dumps(value)}" for key, value in entries.items() if value]
    return ["---", *lines, "---", ""]


def _index(facts: CardFacts, name: str, pipeline: str | None) -> list[dict[str, Any]]:
    """Scores in the form that the Hub lists; only where task and data have names."""
    if not facts.results or pipeline is None or not facts.dataset:
        return []
    metrics: dict[str, list[dict[str, Any]]] = {}
    for result in facts.results:
        metric = {"type": result["metric"], "value": result["value"]}
        metrics.setdefault(str(result.get("split", "test")), []).append(metric)
    results = [
        {
            "task": {"type": pipeline},
            "dataset": {"name": facts.dataset, "type": facts.dataset, "split": split},
            "metrics": found,
        }
        for split, found in metrics.items()
    ]
    return [{"name": name, "results": results}]


def _table(rows: Sequence[Mapping[str, str]], note: str | None) -> list[str]:
    if not rows:
        return []
    columns = list(rows[0])
    lines = ["| " + " | ".join(plain(column) for column in columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(plain(row.get(name, "")) for name in columns) + " |" for row in rows]
    return [*lines, "", plain(note)] if note else lines


def _code(lines: Sequence[str]) -> list[str]:
    return ["```python", *lines, "```"] if lines else []


def _lines(lines: Sequence[str]) -> list[str]:
    """One fact is a paragraph, several are a list."""
    shown = [plain(line) for line in lines]
    return shown if len(shown) == 1 else [f"- {line}" for line in shown]


def _listed(classes: Sequence[str]) -> list[str]:
    """Up to twenty names; the others are in config.json."""
    if not classes or list(classes) == [str(i) for i in range(len(classes))]:
        return []
    more = f", ... ({len(classes)} in all, see config.json)" if len(classes) > 20 else ""
    return [", ".join(plain(name) for name in classes[:20]) + more]
