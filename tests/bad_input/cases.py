"""Wrong recipes, files and shapes: what is done, what is said, which fix is offered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RECIPE = """name = "wrong"
[data]
source = "fashion-small"
limit = 200
[teacher]
model = "cnn-tiny"
weights = "train"
train = { epochs = 1 }
[student]
model = "cnn-tiny"
[method]
name = "kd"
temperature = 4.0
[train]
epochs = 1
batch_size = 32
"""

Files = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """One wrong request.

    Args:
        name: of the test.
        said: stands in the message; `fix`: stands in the fix.
        where: place in the message, if there is one.
        sets: arguments of `--set`.
        edit: text of the recipe to replace, and by what.
        words: further words of the command, or all of them where the first is no flag.
        files: makes files in the working directory first.
        code: exit code: 2 where the request was wrong, 1 where it failed while it ran.
    """

    name: str
    said: str
    fix: str
    where: str = ""
    sets: Sequence[str] = ()
    edit: tuple[str, str] = ("", "")
    words: Sequence[str] = ()
    files: Files | None = field(default=None, repr=False)
    code: int = 2

    def command(self) -> list[str]:
        """The words after `limbeck`."""
        if self.words and not self.words[0].startswith("-"):
            return list(self.words)
        changes = [word for change in self.sets for word in ("--set", change)]
        return ["distill", "mine.toml", *self.words, *changes]


def _table(folder: Path, text: str = "a,b,label\n1,2,0\n3,4,1\n") -> None:
    (folder / "rows.csv").write_text(text, encoding="utf-8")


def _long_table(folder: Path) -> None:
    rows = "\n".join(f"{n},{n * n % 7},{n % 2}" for n in range(200))
    _table(folder, f"a,b,label\n{rows}\n")


def _pickle(folder: Path) -> None:
    import torch

    torch.save({"model": print}, folder / "teacher.pt")


def _other_shapes(folder: Path) -> None:
    from safetensors.torch import save_file
    from torch import nn

    save_file(nn.Linear(3, 2).state_dict(), folder / "teacher.safetensors")


def _cut_short(folder: Path) -> None:
    _other_shapes(folder)
    path = folder / "teacher.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _empty_folder(folder: Path) -> None:
    (folder / "pictures").mkdir()


def _one_class(folder: Path) -> None:
    from PIL import Image

    (folder / "pictures" / "cat").mkdir(parents=True)
    for number in range(12):
        Image.new("L", (8, 8), number).save(folder / "pictures" / "cat" / f"{number}.png")


def _latin(folder: Path) -> None:
    (folder / "latin.toml").write_bytes('name = "caf\u00e9"'.encode("latin-1"))


def _own_module(folder: Path) -> None:
    (folder / "mine_wrong.py").write_text("class NoMethod: pass\n", encoding="ascii")


def _something_else(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "letter.txt").touch()


CASES = [
    # -- the text ----------------------------------------------------------------------------------------
    Case("no-toml", "closing quote", 'close it: "', "mine.toml:1:", edit=('"wrong"', '"wrong')),
    Case("key-twice", "given twice", "keep one", "mine.toml:16:", edit=("batch_size = 32", "epochs = 2\n")),
    Case("word-without-quotes", "no TOML value", 'put text in quotes: "..."', edit=('"kd"', "kd")),
    Case(
        "not-utf8", "UTF-8", "save it as UTF-8", "latin.toml", words=("distill", "latin.toml"), files=_latin
    ),
    Case("no-such-file", "no recipe mien.toml", "mine.toml", words=("distill", "mien.toml")),
    Case("no-such-name", "no recipe quickstrat", "quickstart", words=("distill", "quickstrat")),
    Case(
        "folder-no-run",
        "pictures is no run",
        "limbeck distill RECIPE",
        words=("distill", "pictures"),
        files=_empty_folder,
    ),
    # -- keys and values ---------------------------------------------------------------------------------
    Case("unknown-table", "unknown key trian", "train", "mine.toml:14:1", edit=("[train]", "[trian]")),
    Case(
        "unknown-key",
        "unknown key method.temprature",
        "temperature",
        "mine.toml:13:1",
        edit=("temperature", "temprature"),
    ),
    Case(
        "unknown-key-inline",
        "unknown key teacher.train.epoch",
        "epochs",
        "mine.toml:8:11",
        edit=("{ epochs", "{ epoch"),
    ),
    Case(
        "unknown-key-set",
        "unknown key train.batchsize",
        "batch_size",
        "--set train.batchsize=3",
        sets=["train.batchsize=3"],
    ),
    Case(
        "set-without-value", "--set needs a key and a value", "--set train.epochs=20", sets=["train.epochs"]
    ),
    Case(
        "text-for-number",
        'train.learning_rate needs a number, not "2e-5"',
        "without quotes",
        sets=['train.learning_rate="2e-5"'],
    ),
    Case(
        "word-for-number",
        'train.epochs needs a whole number, not "ten"',
        "epochs = 20",
        sets=["train.epochs=ten"],
    ),
    Case(
        "fraction-for-count",
        "train.epochs needs a whole number, not 2.5",
        "epochs",
        sets=["train.epochs=2.5"],
    ),
    Case(
        "negative-count", "train.batch_size is 0: at least 1", "batch_size = 128", sets=["train.batch_size=0"]
    ),
    Case("unknown-word", 'machine.precision needs "auto"', '"fp32"', sets=["machine.precision=fp23"]),
    Case(
        "missing-model",
        "student.model is missing",
        'model = "cnn-tiny"',
        "mine.toml:9:1",
        edit=('[student]\nmodel = "cnn-tiny"', "[student]"),
    ),
    Case(
        "missing-data",
        "there is no table [data]",
        'source = "fashion-small"',
        edit=('[data]\nsource = "fashion-small"\nlimit = 200\n', ""),
    ),
    Case("missing-student", "there is no student", "[student]", edit=('[student]\nmodel = "cnn-tiny"\n', "")),
    Case(
        "teacher-and-teachers",
        "both [teacher] and [[teachers]]",
        "one [teacher]",
        edit=("[method]", '[[teachers]]\nmodel = "cnn-tiny"\n[method]'),
    ),
    Case("name-is-a-path", "cannot be a folder's name", 'name = "a-b"', sets=["name=a/b"]),
    # -- method and training -----------------------------------------------------------------------------
    Case(
        "unknown-method",
        "there is no method 'kdd'",
        "kd",
        "--set method.name=kdd",
        sets=["method.name=kdd"],
    ),
    Case(
        "method-without-module", "there is no module 'nowhere'", "folder", sets=["method.name=nowhere:Class"]
    ),
    Case(
        "method-that-is-none",
        "mine_wrong:NoMethod is a class, and no subclass of limbeck.Method",
        "with a card",
        sets=["method.name=mine_wrong:NoMethod"],
        files=_own_module,
    ),
    Case(
        "text-for-temperature",
        'method.temperature needs a number, not "warm"',
        "",
        sets=["method.temperature=warm"],
    ),
    Case(
        "temperature-zero",
        "temperature 0.0; needed a number above 0",
        "temperature = 4.0",
        "--set method.temperature=0",
        sets=["method.temperature=0"],
    ),
    Case("taps-for-kd", "kd reads no layers", "leave taps out", sets=['method.taps.student=["layer1"]']),
    Case(
        "unknown-layer",
        "layer9",
        "layer3",
        "--set method.taps=",
        sets=["method.name=semckd", 'method.taps={student=["layer9"], teacher=["layer3"]}'],
    ),
    Case(
        "no-teacher",
        "kd needs a teacher",
        "[teacher]",
        edit=('[teacher]\nmodel = "cnn-tiny"\nweights = "train"\ntrain = { epochs = 1 }\n', ""),
    ),
    Case(
        "two-students-for-one",
        "kd trains one student; 2 are given",
        "one [student]",
        edit=(
            '[student]\nmodel = "cnn-tiny"\n',
            '[[students]]\nmodel = "cnn-tiny"\n[[students]]\nmodel = "cnn-tiny"\n',
        ),
    ),
    Case(
        "unknown-optimizer",
        "there is no optimizer 'AdamV'",
        "Adam",
        "--set train.optimizer=AdamV",
        sets=["train.optimizer=AdamV"],
    ),
    Case(
        "rate-of-another-optimizer",
        "AdamW needs a learning_rate: the default, 0.05, is for SGD",
        "learning_rate = 0.001",
        "--set train.optimizer=AdamW",
        sets=["train.optimizer=AdamW"],
    ),
    Case(
        "unknown-schedule",
        "there is no schedule 'Cosine'",
        "fix: CosineAnnealingLR",
        sets=["train.schedule=Cosine"],
    ),
    Case(
        "optimizer-argument",
        "SGD takes no 'momentun'",
        "momentum",
        sets=["train.optimizer_options.momentun=0.9"],
    ),
    Case(
        "schedule-argument",
        "StepLR takes no 'gammas'",
        "gamma",
        sets=["train.schedule=StepLR", "train.schedule_options={step_size=1, gammas=0.1}"],
    ),
    Case(
        "unknown-group",
        "there is no group 'studnt'",
        "student",
        sets=["train.groups.studnt.learning_rate=0.1"],
    ),
    # -- data --------------------------------------------------------------------------------------------
    Case(
        "unknown-source",
        "no data source 'fashion-smal'",
        "fashion-small",
        "--set data.source",
        sets=["data.source=fashion-smal"],
    ),
    Case("no-such-folder", "nowhere", "", sets=["data.source=imagefolder:nowhere"]),
    Case(
        "folder-without-pictures",
        "pictures",
        "",
        sets=["data.source=imagefolder:pictures"],
        files=_empty_folder,
    ),
    Case("one-class", "class", "", sets=["data.source=imagefolder:pictures"], files=_one_class),
    Case(
        "no-such-column", "labl", "", sets=["data.source=csv:rows.csv", "data.target=labl"], files=_long_table
    ),
    Case("pictures-wanted-rows-given", "", "", sets=["data.source=csv:rows.csv"], files=_long_table),
    Case(
        "augmented-rows",
        "augment",
        "",
        sets=[
            "data.source=csv:rows.csv",
            "data.augment=['flip']",
            "data.limit=100",
            "student.model=mlp",
            "teacher.model=mlp",
        ],
        files=_long_table,
    ),
    Case(
        "more-labels-than-samples",
        "data.labels = 999",
        "200",
        "--set data.labels=999",
        sets=["data.labels=999"],
    ),
    Case("fewer-labels-than-classes", "data.labels = 3", "10", sets=["data.labels=3"]),
    # -- networks ----------------------------------------------------------------------------------------
    Case("unknown-model", "cnn-tinny", "cnn-tiny", sets=["student.model=cnn-tinny"]),
    Case("unknown-model-option", "widht", "", sets=["student.options.widht=8"]),
    Case("weights-missing", "nowhere.safetensors", "", sets=["teacher.weights=nowhere.safetensors"]),
    Case("weights-with-code", "teacher.pt", "", sets=["teacher.weights=teacher.pt"], files=_pickle),
    Case(
        "weights-of-another",
        "teacher.safetensors",
        "",
        sets=["teacher.weights=teacher.safetensors"],
        files=_other_shapes,
    ),
    Case(
        "weights-cut-short",
        "teacher.safetensors",
        "",
        sets=["teacher.weights=teacher.safetensors"],
        files=_cut_short,
    ),
    Case("unknown-statistics", "imagnet", "imagenet", sets=["student.normalize=imagnet"]),
    Case(
        "statistics-of-two-channels", "mean", "", sets=["student.normalize={mean=[0.5, 0.5], std=[0.5, 0.5]}"]
    ),
    # -- machine, folder, command --------------------------------------------------------------------------
    Case("unknown-device", "there is no device 'cpuu'", "cpu", sets=["machine.device=cpuu"]),
    Case(
        "unknown-tracker", "there is no tracker 'tensorbord'", "tensorboard", sets=["log.to=['tensorbord']"]
    ),
    Case("nothing-to-resume", "no run runs/wrong to go on with", "leave --resume out", words=("--resume",)),
    Case(
        "output-is-something-else",
        "out is there and is no run",
        "--output",
        words=("--output", "out"),
        files=_something_else,
    ),
    Case("unknown-flag", "no flag --ouput", "--output", words=("--ouput", "x")),
    Case("unknown-verb", "no verb 'destil'", "distill", words=("destil", "mine.toml")),
]
