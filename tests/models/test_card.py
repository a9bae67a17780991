from __future__ import annotations

import json

import pytest

from limbeck.models.card import CardFacts, write_card

GIVEN = {"library": "limbeck", "inputs": "image", "kind": "classes", "classes": ["a", "b"], "loading": ["x"]}


def front(text):
    """The values between the lines of dashes; each is JSON."""
    lines = text.split("---\n")[1].splitlines()
    return {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in lines}


def test_without_facts_there_are_no_empty_headings():
    text = write_card(CardFacts(), **{**GIVEN, "classes": [], "loading": []})
    assert [line for line in text.splitlines() if line.startswith("#")] == ["# student"]
    assert set(front(text)) == {"library_name", "pipeline_tag", "tags"}


def test_every_fact_has_its_place():
    facts = CardFacts(
        name="quickstart",
        summary="A student.",
        rows=[{"": "teacher", "test": "90 %"}, {"": "student", "test": "87 %"}],
        table_note="One seed.",
        data=["10,000 pictures", "1,000 labels"],
        dataset="fashion-small",
        method=["kd (Hinton et al. 2015), temperature 4"],
        limits=["not measured on photographs"],
        base_model=["timm/resnet18"],
        license="mit",
        version="0.1.0",
        results=[{"metric": "accuracy", "value": 0.87, "split": "test"}],
    )
    text = write_card(facts, **GIVEN)
    assert "| student | 87 % |" in text
    assert "One seed." in text
    assert "- 1,000 labels" in text
    assert "- made with limbeck 0.1.0" in text
    headings = [line for line in text.splitlines() if line.startswith("##")]
    assert headings == ["## Results", "## Loading", "## Classes", "## Data", "## Method", "## Limits"]
    values = front(text)
    assert values["base_model"] == ["timm/resnet18"]
    (entry,) = values["model-index"]
    assert entry["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.87}]
    assert entry["results"][0]["task"] == {"type": "image-classification"}


def test_what_comes_from_data_has_no_meaning_in_markdown():
    text = write_card(
        CardFacts(name="a\n# b", rows=[{"x|y": "<script>"}], data=["[link](evil)"]),
        **{**GIVEN, "classes": ["*"]},
    )
    assert "\n# b" not in text
    assert "<script>" not in text
    assert "[link](" not in text
    assert "\\*" in text


def test_the_hub_understands_it():
    hub = pytest.importorskip("huggingface_hub")
    facts = CardFacts(
        name="quickstart", dataset="fashion-small", results=[{"metric": "accuracy", "value": 0.87}]
    )
    data = hub.ModelCard(write_card(facts, **GIVEN)).data
    assert data.to_dict()["library_name"] == "limbeck"
    assert data.eval_results[0].metric_value == 0.87


def test_many_classes_are_not_all_listed():
    text = write_card(CardFacts(), **{**GIVEN, "classes": [f"class {i}" for i in range(100)]})
    assert "class 19, ... (100 in all" in text
