"""Distillation inside the `Trainer` of Hugging Face transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from limbeck.errors import RequestError, require
from limbeck.integrations._single import (
    enter_only_stage,
    refuse_non_finite,
    refuse_unlabelled,
    takes_labelled_alone,
)
from limbeck.method import Method
from limbeck.task import RESERVED, inputs_of
from limbeck.teacher import Teacher

require("transformers", "text", "the adapter to the Trainer of Hugging Face")
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments  # noqa: E402

#: Names under which data sets keep the targets before and after their collator.
_LABELS = ("labels", "label", "label_ids")
#: The whole method, beside the student that the Trainer saves, in every checkpoint.
METHOD_FILE = "method.safetensors"


class DistillationTrainer(Trainer):
    """A `Trainer` whose training loss is that of a method.

    What is optimised is `method.parameters()`: the student and what the method adds to it, never the teacher.
    `evaluate`, `predict` and saving act on what is deployed, the student. A checkpoint folder holds it as
    `from_pretrained` loads it, and `method.safetensors` for the resume.

    - Gradient accumulation and several processes: means over samples, labels and tokens are over the whole
      effective batch.
    - Columns: what the student, a teacher or another network of the method takes is kept, with `index`, which
      no model is given.
    - The log has the unweighted terms beside the loss. A loss that is not finite stops the training.

    Args:
        method: a method with one stage and one update; others are refused, the engine trains them.
        args: as in `Trainer`; one device a process. `label_smoothing_factor` and `torch_compile` are refused:
            the loss is the method's, and networks are compiled in place (`student.compile()`).
        data_collator, train_dataset, eval_dataset, processing_class, compute_metrics, callbacks, optimizers,
        preprocess_logits_for_metrics: as in `Trainer`. Predictions are the outputs that the task reads.
    """

    def __init__(
        self,
        method: Method,
        args: TrainingArguments | None = None,
        *,
        data_collator: Callable[..., Any] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Callable[..., dict[str, float]] | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        preprocess_logits_for_metrics: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        self.update = enter_only_stage(method, "the Hugging Face Trainer")
        self.method, self._labelled_alone = method, takes_labelled_alone(method)
        args = args or TrainingArguments("trainer_output")
        _check_arguments(args)
        super().__init__(
            model=method,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            compute_metrics=compute_metrics,
            callbacks=None if callbacks is None else list(callbacks),
            optimizers=optimizers,
            preprocess_logits_for_metrics=preprocess_logits_for_metrics,
        )
        self._totals: dict[str, float] = {}
        self._terms: dict[str, Tensor] = {}
        self._num_terms = 0

    # -- data ----------------------------------------------------------------------------------------

    def _set_signature_columns_if_needed(self) -> None:
        """The columns that reach the collator: in place of the inputs of `method.forward`."""
        if self._signature_columns is None:
            names = [name for network in _networks(self.method) for name in inputs_of(network)[0]]
            kept = dict.fromkeys([*names, *RESERVED, *_LABELS, *self.label_names])
            self._signature_columns = list(kept)  # type: ignore[assignment]  # annotated as None alone

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, *device: Any
    ) -> tuple[list[Any], Any]:
        """The micro-batches of one step; what they hold in all is counted for the means of the method."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, *device)
        self._totals = self._counted(samples)
        return samples, items

    def _counted(self, samples: Sequence[Any]) -> dict[str, float]:
        """Samples and targets of a step over all its micro-batches and processes; empty if it has one."""
        if len(samples) * self.accelerator.num_processes < 2:
            return {}
        own = [self.method.task.counts(self.method.task.batch(each)) for each in samples]
        names = list(own[0])
        totals = torch.tensor([int(sum(count[name] for count in own)) for name in names])
        totals = totals.to(self.args.device)
        return dict(zip(names, self.accelerator.reduce(totals, "sum").tolist(), strict=True))

    # -- training ------------------------------------------------------------------------------------

    def compute_loss(
        self, model: nn.Module, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The total of the method on one micro-batch; the Trainer divides it by their number."""
        batch = self.method.task.batch(inputs)
        self._check_index(batch)
        if self._labelled_alone:
            refuse_unlabelled(self.method, batch)
        if self._totals:
            pieces = self.current_gradient_accumulation_steps * self.accelerator.num_processes
            batch["count"] = {name: total / pieces for name, total in self._totals.items()}
        self._tell_method()
        losses = model(batch, update=self.update.name)
        refuse_non_finite(losses, batch)
        for name, term in losses.terms.items():
            self._terms[name] = self._terms.get(name, torch.zeros_like(term)).detach() + term.detach()
        self._num_terms += 1
        return (losses.total, losses) if return_outputs else losses.total

    def _check_index(self, batch: Mapping[str, Any]) -> None:
        if "index" in self.method.card.needs and "index" not in batch:
            raise RequestError(
                f"{self.method.card.slug} needs the index of every sample, and the batch has none",
                fix='train_dataset = train_dataset.add_column("index", list(range(len(train_dataset))))',
            )

    def _tell_method(self) -> None:
        state = self.state
        self.method.epoch = int(state.epoch or 0) + 1
        self.method.epochs = state.num_train_epochs
        self.method.progress = state.global_step / max(state.max_steps, 1)
        self.method.optimizers = {self.update.name: self.optimizer}

    def log(self, logs: dict[str, float], *start_time: Any) -> None:
        """Adds the mean unweighted terms since the last line to a line with the training loss."""
        if "loss" in logs and self._num_terms:
            logs = {**logs, **{name: term.item() / self._num_terms for name, term in self._terms.items()}}
            self._terms, self._num_terms = {}, 0
        super().log(logs, *start_time)

    # -- evaluation ----------------------------------------------------------------------------------

    @contextmanager
    def _acting_on(self, network: nn.Module) -> Iterator[None]:
        """The Trainer works on a network in place of the method."""
        method, self.model = self.model, network
        try:
            yield
        finally:
            self.model = method

    def evaluation_loop(self, *arguments: Any, **keywords: Any) -> Any:
        """As in `Trainer`, on the network that the method has scored first: the student."""
        with self._acting_on(next(iter(self.method.networks().values()))):
            return super().evaluation_loop(*arguments, **keywords)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss of the task (None without targets), output and targets of one batch."""
        task = self.method.task
        batch = task.batch(self._prepare_inputs(inputs))
        targets = batch.get("targets")
        with torch.no_grad(), self.compute_loss_context_manager():
            output = task.call(model, batch)
            loss = None if targets is None else task.loss(output, batch).detach()
        return (loss, None, None) if prediction_loss_only else (loss, output, targets)

    # -- saving and resuming -------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """The student, as `from_pretrained` (or for other networks safetensors) loads it."""
        student = self.method.deployable()
        state = None if isinstance(student, PreTrainedModel) else _each_once(student.state_dict())
        with self._acting_on(student):
            super()._save(output_dir, state_dict=state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            safetensors.torch.save_model(self.method, str(folder / METHOD_FILE))
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_method(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        self._load_method(str(self.state.best_model_checkpoint))

    def _load_method(self, folder: str) -> None:
        path = Path(folder) / METHOD_FILE
        if not path.is_file():
            raise RequestError(
                f"{folder} has no {METHOD_FILE}, so it is no checkpoint of a DistillationTrainer",
                fix="resume_from_checkpoint: the folder of one, as trainer_output/checkpoint-500",
            )
        safetensors.torch.load_model(self.method, str(path))


def _check_arguments(args: TrainingArguments) -> None:
    """Refuses settings that would change what is trained behind the method's back."""
    # The older name is an alias; the newer one is not known to older versions.
    checkpointing = any(vars(args).get(f"{name}_checkpointing") for name in ("gradient", "activation"))
    refused = {
        "label_smoothing_factor": (bool(args.label_smoothing_factor), "the loss is the method's"),
        "torch_compile": (args.torch_compile, "compile the networks in place: student.compile()"),
        "activation_checkpointing": (checkpointing, "switch it on in the student itself"),
        "fsdp": (bool(args.fsdp), "start one process a device: accelerate launch"),
        "deepspeed": (args.deepspeed is not None, "start one process a device: accelerate launch"),
    }
    for name, (given, fix) in refused.items():
        if given:
            raise RequestError(f"the distillation Trainer does not take {name}", fix=fix)
    if args.n_gpu > 1:
        raise RequestError(
            f"{args.n_gpu} GPUs in one process would split batches behind the method's back",
            fix="accelerate launch, or CUDA_VISIBLE_DEVICES=0",
        )


def _networks(method: Method) -> Iterator[nn.Module]:
    """The networks that a method may call with inputs: its children and its teachers."""
    for child in method.children():
        yield from child if isinstance(child, nn.ModuleList) else [child]
    for held in vars(method).values():
        for value in held if isinstance(held, (list, tuple)) else [held]:
            if isinstance(value, Teacher):
                yield value.model


def _each_once(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without the further names of tied weights, which safetensors does not take."""
    found: dict[tuple[Any, ...], str] = {}
    for name, value in state.items():
        place = (value.data_ptr(), value.shape, value.stride()) if value.numel() else (name,)
        found.setdefault(place, name)
    return {name: state[name] for name in found.values()}
