"""Wrong requests of `layers`, `recipes` and `methods`, and wrong words in general."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input.cases import Case


def _a_word(folder: Path) -> None:
    (folder / "mine_word.py").write_text("def net(): return 'a network'\n", encoding="ascii")


def _hugging_face(folder: Path) -> None:
    (folder / "bert").mkdir()
    (folder / "bert" / "config.json").write_text('{"model_type": "bertt"}', encoding="ascii")


CASES = [
    Case("layers-of-nothing", "limbeck layers needs MODEL", "limbeck layers --help", words=["layers"]),
    Case("layers-of-unknown", "no built-in network 'cnn-tinny'", "cnn-tiny", words=["layers", "cnn-tinny"]),
    Case(
        "layers-no-folder", "there is no folder 'a/student'", "student/ folder", words=["layers", "a/student"]
    ),
    Case("layers-no-student", "holds no student", "a finished run", words=["layers", "."]),
    Case("layers-no-module", "there is no module 'nowhere'", "nowhere.py", words=["layers", "nowhere:net"]),
    Case(
        "layers-no-network",
        "mine_word:net returned a str; needed a torch.nn.Module",
        "builds a network",
        words=["layers", "mine_word:net"],
        files=_a_word,
    ),
    Case("layers-no-timm", "timm has no model 'resnet999'", "resnet", words=["layers", "timm:resnet999"]),
    Case(
        "layers-of-another-tool",
        "was not written by limbeck",
        '"hf:bert"',
        words=["layers", "bert"],
        files=_hugging_face,
    ),
    Case(
        "layers-size-zero",
        "size is 0: at least 1 is needed",
        "leave size out",
        words=["layers", "cnn-tiny", "--size", "0"],
    ),
    Case(
        "layers-size-negative",
        "size is -3: at least 1",
        "leave size out",
        words=["layers", "cnn-tiny", "--size", "-3"],
    ),
    Case(
        "layers-no-channels",
        "channels is 0: at least 1",
        "leave channels out",
        words=["layers", "cnn-tiny", "--channels", "0"],
    ),
    Case(
        "layers-no-classes",
        "classes is 0: at least 1",
        "leave classes out",
        words=["layers", "cnn-tiny", "--classes", "0"],
    ),
    Case(
        "layers-size-in-words",
        "--size needs a whole number",
        "--help",
        words=["layers", "cnn-tiny", "--size", "big"],
    ),
    Case("layers-of-two", "fewer words", "limbeck layers --help", words=["layers", "cnn-tiny", "mlp"]),
    Case("recipe-unknown", "no recipe 'quickstrat'", "quickstart", words=["recipes", "quickstrat"]),
    Case("recipes-of-two", "fewer words", "limbeck recipes --help", words=["recipes", "quickstart", "b"]),
    Case("method-unknown", "there is no method 'kdd'", "fix: kd", words=["methods", "kdd"]),
    Case("method-without-name", "there is no method ''", "limbeck methods", words=["methods", ""]),
    Case("flag-after-verb", "no flag --jsno", "--json", words=["methods", "--jsno"]),
    Case("distill-nothing", "limbeck distill needs RECIPE|RUN", "--help", words=["distill"]),
    Case("distill-no-name", ". is no run: it has no resolved.toml", "RECIPE", words=["distill", ""]),
    Case("flag-without-value", "--output needs a value", "--help", words=("--output",)),
    Case("set-a-table", "train needs a table, not 3", "table", "--set train=3", sets=["train=3"]),
    Case("size-zero", "student.size is 0", "a whole number, at least 1", sets=["student.size=0"]),
    Case("unknown-mix", 'data.mix needs "none"', '"mixup"', sets=["data.mix=mixupp"]),
    Case("unknown-augmentation", "no augmentation 'flipp'", "flip", sets=["data.augment=['flipp']"]),
    Case("unknown-export", "export.to", '"onnx"', sets=["export.to=['onx']"]),
    Case("unknown-source-of-all", "no data source 'zzz'", "csv:PATH", sets=["data.source=zzz"]),
]
