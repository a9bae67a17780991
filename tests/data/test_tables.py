from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from limbeck.data.sources import load_source
from limbeck.errors import RequestError
from limbeck.task import Classification, Regression


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def rows(number: int = 20) -> str:
    lines = [f"{i}, {'red' if i % 2 else 'blue'},{'yes' if i % 4 < 2 else 'no'}" for i in range(number)]
    return "\n".join(["width,colour,label", *lines]) + "\n"


def encoded(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_one_csv_file_is_split_by_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", rows())
    splits = load_source(f"csv:{path}", seed=1)
    assert isinstance(splits.task, Classification)
    assert splits.classes == ["no", "yes"]
    assert [len(part) for part in splits.parts().values()] == [16, 2, 2]
    batch = splits.train.batch([0])
    assert batch["inputs"].shape == (1, 3)
    assert splits.reading["kind"] == "row"
    assert [column["name"] for column in splits.reading["columns"]] == ["width", "colour"]
    assert any("2 columns are inputs of width 3" in note for note in splits.notes)


@pytest.mark.parametrize("name", ["{}.csv", "{}.csv.gz", "adult_{}.csv"])
def test_files_of_a_folder_are_parts(tmp_path: Path, name: str) -> None:
    for part, number in (("train", 20), ("dev", 8), ("test", 4)):
        write(tmp_path / name.format(part), rows(number))
    for place in (tmp_path, tmp_path / name.format("train")):
        splits = load_source(f"csv:{place}")
        assert [len(part) for part in splits.parts().values()] == [20, 8, 4]
        assert splits.division is None
        assert any("from beside" in note for note in splits.notes) == (place != tmp_path)


def test_what_is_learned_from_columns_is_learned_from_training_rows_alone(tmp_path: Path) -> None:
    text = "x,price\n" + "\n".join(f"{i},{i * 2.5}" for i in range(40))
    splits = load_source(f"csv:{write(tmp_path / 'a.csv', text)}", target="price", validation=0.3)
    for values in (splits.train.targets(), splits.train.batch(range(len(splits.train)))["inputs"]):
        assert float(values.mean()) == pytest.approx(0, abs=1e-6)
        assert float(values.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert len(splits.train) == 24


def test_a_column_may_name_the_part(tmp_path: Path) -> None:
    lines = [f"{i},{i % 2},{('train', 'train', 'val', 'test')[i % 4]}" for i in range(40)]
    path = write(
        tmp_path / "a.csv", "\n".join(["x,label,split", *[line.replace(",1,", ",b,") for line in lines]])
    )
    splits = load_source(f"csv:{path}", target="label")
    assert [len(part) for part in splits.parts().values()] == [20, 10, 10]
    assert splits.train.batch([0])["inputs"].shape == (1, 1)
    text = path.read_text().replace("x,label,split", "x,label,fold")
    renamed = write(tmp_path / "b.csv", text)
    assert [len(p) for p in load_source(f"csv:{renamed}", split="fold").parts().values()] == [20, 10, 10]
    bad = write(tmp_path / "c.csv", text.replace("val", "7"))
    with pytest.raises(RequestError, match="'7', which names no part"):
        load_source(f"csv:{bad}", split="fold")


def test_tabs_are_read_without_quotes_and_semicolons_are_seen(tmp_path: Path) -> None:
    tabs = write(tmp_path / "a.tsv", 'label\tx\nyes\t1\nno\t2\nyes\t3\n"no"\t4\n' + "yes\t1\nno\t2\n" * 5)
    assert load_source(f"csv:{tabs}", validation=0, test=0).classes == ['"no"', "no", "yes"]
    semicolons = write(tmp_path / "b.csv", "label;x\na;1\nb;2\na;3\nb;4\n")
    assert load_source(f"csv:{semicolons}", validation=0, test=0).classes == ["a", "b"]


def test_real_values_are_regression_in_units_of_their_spread(tmp_path: Path) -> None:
    text = "x,price\n" + "\n".join(f"{i},{i * 2.5}" for i in range(40))
    splits = load_source(f"csv:{write(tmp_path / 'a.csv', text)}", target="price", validation=0, test=0)
    assert isinstance(splits.task, Regression)
    targets = splits.train.targets()
    assert float(targets.mean()) == pytest.approx(0, abs=1e-6)
    assert float(targets.std(correction=0)) == pytest.approx(1, abs=1e-6)
    assert splits.reading["target"]["mean"] == pytest.approx(48.75)
    counts = load_source(f"csv:{tmp_path / 'a.csv'}", target="x", task="values", features=["price"])
    assert isinstance(counts.task, Regression)


def test_pictures_by_path(tmp_path: Path) -> None:
    (tmp_path / "img").mkdir()
    for i in range(6):
        (tmp_path / "img" / f"{i}.png").write_bytes(encoded(i))
    text = "file,label\n" + "\n".join(f"img/{i}.png,{'ab'[i % 2]}" for i in range(6))
    path = write(tmp_path / "a.csv", text)
    splits = load_source(f"csv:{path}", validation=0, test=0)
    assert splits.train.batch([5])["inputs"].shape == (1, 3, 4, 5)
    assert splits.reading == {"kind": "image", "channels": 3, "size": [4, 5]}
    moved = write(tmp_path / "elsewhere" / "a.csv", text)
    with pytest.raises(RequestError, match="there is no picture"):
        load_source(f"csv:{moved}")
    assert len(load_source(f"csv:{moved}", root=tmp_path, validation=0, test=0).train) == 6


def test_pictures_in_parquet(tmp_path: Path) -> None:
    labels = [i % 2 for i in range(8)]
    path = write_parquet(tmp_path / "a.parquet", {"img": [encoded(i) for i in range(8)], "label": labels})
    splits = load_source(f"parquet:{path}", validation=0, test=0)
    assert float(splits.train.batch([7])["inputs"].max()) == pytest.approx(7 / 255)
    structs = [{"bytes": encoded(i), "path": None} for i in range(8)]
    pieces = {"image": structs, "label": labels}
    for piece in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(tmp_path / "hub" / f"{piece}.parquet", pieces)
    splits = load_source(f"parquet:{tmp_path / 'hub'}")
    assert [len(part) for part in splits.parts().values()] == [14, 2, 8]


def test_a_broken_picture_in_parquet_is_named_by_row(tmp_path: Path) -> None:
    from limbeck.errors import RunError

    content = [encoded(), b"broken", encoded(), encoded()]
    path = write_parquet(tmp_path / "a.parquet", {"image": content, "label": ["a", "b", "a", "b"]})
    splits = load_source(f"parquet:{path}", validation=0, test=0)
    with pytest.raises(RunError) as caught:
        splits.train.batch([1])
    assert caught.value.where == f"{path}, row 1"


def test_tokens_that_are_there_already(tmp_path: Path) -> None:
    ids = [[1, 2, 3], [4], [5, 6], [7, 8]]
    path = write_parquet(tmp_path / "a.parquet", {"input_ids": ids, "label": [0, 1, 0, 1]})
    inputs = load_source(f"parquet:{path}", validation=0, test=0).train.batch([1, 2])["inputs"]
    assert inputs["input_ids"].tolist() == [[4, 0, 0], [5, 6, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 0]]


def test_text_by_a_tokenizer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    folder = tmp_path / "tokenizer"
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(folder)
    text = "label\ttext\n" + "pos\tgood film\nneg\tbad\npos\tgood\nneg\tbad film bad\n"
    path = write(tmp_path / "a.tsv", text)
    splits = load_source(f"csv:{path}", text=["text"], tokenizer=str(folder), validation=0, test=0)
    inputs = splits.train.batch([0, 3])["inputs"]
    assert inputs["input_ids"].tolist() == [[2, 5, 7, 3, 0], [2, 6, 7, 6, 3]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    cut = load_source(f"csv:{path}", text=["text"], tokenizer=str(folder), max_length=3, validation=0, test=0)
    assert cut.train.batch([0])["inputs"]["input_ids"].tolist() == [[2, 5, 3]]
    assert splits.reading["tokenizer"] == str(folder)
    for wrong in (None, str(tmp_path / "absent" / "tokenizer")):
        with pytest.raises(RequestError, match="tokenizer"):
            load_source(f"csv:{path}", text=["text"], tokenizer=wrong)


@pytest.mark.parametrize(
    ("text", "options", "word"),
    [
        ("", {}, "is empty"),
        ("x,label\n", {}, "has no row"),
        ("x,y\n1,2\n", {}, "no column named label or target"),
        ("x,label\n1,a\n", {"target": "lable"}, "has no column 'lable'"),
        ("x,label\n1,a,3\n", {}, "3 values under a header of 2"),
        ("x,x,label\n1,2,a\n", {}, "two columns are named 'x'"),
        ("label\na\nb\n", {}, "no column beside 'label'"),
        ("x,label\n1,a\n2,a\n", {}, "one class"),
        ("x,label\n1,\n2,\n", {}, "no training sample has a label"),
        ("x,label\n1,a\n2,b\n", {"features": ["z"]}, "has no column 'z'"),
        ("x,label\n1,a\n2,b\n", {"image": "x"}, "there is no picture"),
        ("x,label\n1,a\n2,b\n", {"task": "values"}, "texts, not numbers"),
    ],
)
def test_tables_that_cannot_be_read_say_why(
    tmp_path: Path, text: str, options: dict[str, Any], word: str
) -> None:
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(RequestError, match=word):
        load_source(f"csv:{path}", **options)


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00label")
    (tmp_path / "b.csv.gz").write_bytes(b"not gzip")
    (tmp_path / "c.parquet").write_bytes(b"not parquet")
    for source, word in (
        ("csv:a.csv", "UTF-8"),
        ("csv:b.csv.gz", "b.csv.gz"),
        ("parquet:c.parquet", "Parquet"),
    ):
        kind, _, name = source.partition(":")
        with pytest.raises(RequestError, match=word):
            load_source(f"{kind}:{tmp_path / name}")
    (tmp_path / "d").mkdir()
    for name in ("one.csv", "two.csv"):
        write(tmp_path / "d" / name, rows())
    with pytest.raises(RequestError, match="none of them named train"):
        load_source(f"csv:{tmp_path / 'd'}")


def test_labels_of_many_kinds_are_probably_numbers(tmp_path: Path) -> None:
    text = "x,label\n" + "\n".join(f"{i},{i}" for i in range(1500))
    with pytest.raises(RequestError, match="1500 different numbers in 1500 rows"):
        load_source(f"csv:{write(tmp_path / 'a.csv', text)}")
    splits = load_source(f"csv:{tmp_path / 'a.csv'}", task="classes", validation=0, test=0)
    assert len(splits.classes or []) == 1500


def test_a_test_part_without_labels_is_said(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows())
    write(tmp_path / "test.csv", "width,colour\n1,red\n")
    splits = load_source(f"csv:{tmp_path}")
    assert splits.test is not None
    assert any("test has no labels" in note for note in splits.notes)
    assert torch.bincount(splits.test.targets()).tolist() == [1, 1]
