"""The tables of a recipe. Every field says its unit and what its words mean; order = order in TOML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from limbeck.data.augment import AugmentEntry
from limbeck.engine.settings import Training

Count = Annotated[int, Field(ge=1)]
Auto = Literal["auto"]


class Section(BaseModel):
    """A table of the recipe: strict, no further keys, not changed after it was made."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Data(Section):
    """`[data]`: where the samples come from, and what the student sees of them."""

    source: str = Field(
        examples=["fashion-small"],
        description='A set by name ("fashion-small", "fashion-mnist", "cifar10", "cifar100"), or '
        '"imagefolder:PATH", "parquet:PATH", "csv:PATH", "hf:NAME or folder", "module:function".',
    )
    root: str | None = Field(
        default=None, description="Folder in which named sets are looked for; else LIMBECK_DATA."
    )
    seed: int = Field(default=0, ge=0, description="Of drawn splits, labels, limits and views.")
    labels: Count | None = Field(
        default=None, description="Labels that students see, class-balanced; teachers see all of them."
    )
    limit: Count | None = Field(default=None, description="Training samples, class-balanced; none: all.")
    augment: list[AugmentEntry] = Field(
        default_factory=list,
        description="Of training pictures, in this order: names, or tables of a name and options, as "
        '{ name = "crop", padding = 2 }.',
    )
    mix: Literal["none", "mixup", "cutmix"] = Field(
        default="none",
        description="Training batches of mixed samples, classes only; the teacher sees what is mixed.",
    )
    mix_alpha: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="Of Beta(alpha, alpha), the share of a sample; 0.2 for mixup, 1 for cutmix."
    )
    views: Annotated[int, Field(ge=0)] | Literal["auto", "fresh"] = Field(
        default="auto",
        description="Views of each augmented picture that students see in turn, epoch by epoch: a number (0: "
        'the picture as it is), "fresh" (a new one each epoch), auto: a quarter of the epochs, at least 4.',
    )
    validation: float = Field(
        default=0.1, ge=0, lt=1, description="Share drawn from training where the source has no such part."
    )
    test: float | None = Field(
        default=None, ge=0, lt=1, description="The same for test; 0.1 where the source has no split at all."
    )
    task: Literal["classes", "values"] | None = Field(
        default=None, description="What the target is; by default told by its column."
    )
    target: str | None = Field(default=None, description='Column of the target; else "label" or "target".')
    image: str | None = Field(default=None, description="Column of pictures, as paths or bytes.")
    text: list[str] = Field(default_factory=list, description="Columns of text; they need a tokenizer.")
    features: list[str] = Field(default_factory=list, description="Columns that are inputs; else all others.")
    tokenizer: str | None = Field(default=None, description="Hugging Face tokenizer, by name or folder.")
    max_length: Count = Field(default=128, description="Tokens a text is cut to.")
    split: str | None = Field(default=None, description="Column that says which part a row belongs to.")
    size: Count | None = Field(default=None, description="Side in pixels that pictures of a source get.")
    skip_unreadable: bool = Field(
        default=False, description="Leave out pictures that cannot be read; else they stop the run."
    )


class Statistics(Section):
    """Mean and standard deviation by channel, of pixels from 0 to 1."""

    mean: list[float] = Field(examples=[[0.5]], description="One a channel.")
    std: list[float] = Field(examples=[[0.5]], description="One a channel, above 0.")


class Network(Section):
    """What a network is and how it wants its pixels."""

    model: str = Field(
        examples=["cnn-tiny"],
        description='A built-in network by name, "timm:NAME", "torchvision:NAME", "hf:NAME or folder", '
        '"module:function", or the student/ folder of a run.',
    )
    weights: str | None = Field(
        default=None,
        description="A .safetensors or weights-only .pt file, or a student/ folder; else random.",
    )
    normalize: str | Statistics | None = Field(
        default=None,
        description='Statistics of the pixels: a name ("imagenet"), a table, or the model\'s own.',
    )
    size: Count | None = Field(
        default=None, description="Side in pixels that this network wants; none: that of the data."
    )
    channels: Literal[1, 3] | None = Field(
        default=None, description="1 grey, 3 colour; none: that of the data."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Arguments of the model's constructor.")


class TeacherNetwork(Network):
    """`[teacher]`, or one of `[[teachers]]`."""

    weights: str = Field(
        default="train",
        description='"train": trained first by [teacher.train]; else a file with its weights, or a folder.',
    )
    train: Training = Field(
        default_factory=Training, description="Keys of [train] that are different for the teacher."
    )

    accept_chance: bool = Field(
        default=False, description="Go on with given weights that are no better than chance."
    )


class StudentNetwork(Network):
    """`[student]`, or one of `[[students]]`."""


class TapNames(Section):
    """Layers to read, by path; not given: proposed from a dry batch and shown in the plan."""

    student: list[str] = Field(default_factory=list, description="Layers of the student.")
    teacher: list[str] = Field(default_factory=list, description="Layers of the teacher.")


class MethodChoice(BaseModel):
    """`[method]`: a method by name, and its hyper-parameters under their own names."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str = Field(default="kd", description='A slug of `limbeck methods`, or "module:Class" of your own.')
    taps: TapNames | None = None

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """What was given beside name and taps."""
        return self.model_extra or {}


class Cache(Section):
    """`[cache]`: the teacher's answers on disk, for all runs with the same teacher and data."""

    mode: Literal["off", "auto", "require"] = Field(
        default="auto",
        description="auto: answers are stored where that can be, else the teacher runs live and the plan "
        "says why; require: refused where it cannot be; off: the teacher runs live.",
    )
    folder: str = Field(default="runs/cache", description="Where caches lie, a folder each.")
    dtype: Literal["float32", "float16"] = Field(
        default="float32", description="Of stored values; float32 gives the same losses as a live teacher."
    )
    top_k: Count | None = Field(
        default=None,
        description="Keep the largest logits of an answer, and the mass of the others.",
    )
    temperatures: list[Annotated[float, Field(gt=0)]] = Field(
        default_factory=list,
        description="With top_k: where the mass of the others is kept; 1 and the method's own always are.",
    )


class Machine(Section):
    """`[machine]`: speed and memory; outside the fingerprint of a recipe."""

    device: str = Field(default="auto", description='"cpu", "cuda", "cuda:1", "mps".')
    threads: Count | Auto = Field(default="auto", description="Processor threads of one operation.")
    workers: Annotated[int, Field(ge=0)] | Auto = Field(
        default="auto", description="Processes that read samples."
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Of the training's products. auto: bf16 where the device computes in it and the students "
        "gain by it, else fp32.",
    )
    layout: Literal["auto", "contiguous", "channels_last"] = Field(
        default="auto",
        description="Memory format of pictures in training. auto: channels_last, unless a network cannot.",
    )
    compile: bool | Auto = Field(
        default="auto",
        description="Compile what trains by torch.compile. auto: where a phase takes half an hour, on a GPU "
        "or a processor with AMX, and there is a C++ compiler.",
    )
    teacher: list[Literal["fold", "channels_last", "bf16", "compile"]] | Auto = Field(
        default="auto",
        description="What makes a live teacher faster: batch norms folded into convolutions, and the others "
        "as above; [] is the plain network. auto: what its answers allow, each checked against them.",
    )
    micro_batch: Count | Auto = Field(
        default="auto", description="Samples at once; the effective batch stays."
    )


class Log(Section):
    """`[log]`: trackers by name, beside the files that every run writes."""

    to: list[str] = Field(default_factory=list, description='Names as "tensorboard"; none by default.')


class Export(Section):
    """`[export]`: files for the device, written at the end."""

    to: list[Literal["torch", "onnx"]] = Field(
        default=["onnx"], description="Formats: a program of torch.export, a file of ONNX; [] for none."
    )
    int8: bool = Field(
        default=False, description="Besides an ONNX file in int8, calibrated on training samples."
    )
    max_drop: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="Points of validation score that int8 may lose; a file that loses more is not kept and "
        "the exit code is 1. Without it the loss is only said.",
    )
    calibration: Count = Field(
        default=512, description="Training samples that int8 takes the ranges of its values from."
    )
    preprocessing: Literal["graph", "none"] = Field(
        default="graph",
        description="graph: files take pixels 0 to 1 and hold the student's resizing and normalisation; "
        "none: that is left to whoever calls them.",
    )
