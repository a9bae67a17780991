"""The general loop: stages x updates x micro-batches, on Accelerate, with exact resume."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from limbeck._clock import Clock, part
from limbeck._fast.memory import freed_memory_kept
from limbeck.data.dataset import Dataset, as_dataset
from limbeck.data.loader import Loader
from limbeck.engine.cost import cost_of
from limbeck.engine.evaluation import evaluate
from limbeck.engine.interruption import Interruption
from limbeck.engine.keeper import Keeper
from limbeck.engine.layout import arranged
from limbeck.engine.listener import EpochEnd, Listener, StageStart, StepEnd
from limbeck.engine.preparation import Tools, Wrapped, rates, tools_for
from limbeck.engine.process import accelerator_for, average_buffers, averaged, summed
from limbeck.engine.result import Fit
from limbeck.engine.settings import Machine, Training
from limbeck.engine.stages import begin, begun_before, check, due, epochs_of, select
from limbeck.engine.state import (
    Means,
    Progress,
    Tool,
    copied,
    method_tensors,
    random_state,
    restore_random_state,
)
from limbeck.engine.steps import counted, index_of, refuse_non_finite
from limbeck.errors import Interrupted, RequestError
from limbeck.method import Method, Stage
from limbeck.record import Losses
from limbeck.task import num_samples


def fit(
    method: Method,
    train: Any,
    validation: Any = None,
    settings: Training | None = None,
    *,
    seed: int = 0,
    folder: Path | str | None = None,
    resume: bool = False,
    views: int | Literal["fresh"] = 0,
    listener: Listener | None = None,
    machine: Machine | None = None,
    interruption: Interruption | None = None,
) -> Fit:
    """Trains a method: every stage, its updates, its micro-batches.

    Args:
        method: any `Method`; its teacher is not touched.
        train: a `Dataset`, or what `as_dataset` takes.
        validation: the data that chooses checkpoints; without it the last epoch is chosen.
        settings: epochs, batch size, optimizer and schedule.
        seed: of the order of samples and of what training draws; the caller's generators are restored.
        folder: where checkpoints go; None keeps the chosen weights in memory.
        resume: goes on from the newest checkpoint of `folder`; without one it starts.
        views: 0 shows samples as they are; V cycles through V augmented views; "fresh" is one an epoch.
        listener: hears of stages, steps and epochs.
        machine: device, threads, workers, precision and micro-batch.
        interruption: stops the run, saved, when a signal came.

    Raises:
        RequestError: settings, data or method do not fit together; nothing has been trained.
        RunError: a loss is not finite, or a checkpoint cannot be written.
        Interrupted: a signal came; the state is saved.
    """
    outside = random_state()
    try:
        loop = _Loop(
            method,
            as_dataset(train),
            None if validation is None else as_dataset(validation),
            settings or Training(),
            seed,
            None if folder is None else Path(folder),
            views,
            listener or Listener(),
            machine or Machine(),
            interruption or Interruption(),
        )
        return loop.run(resume)
    finally:
        restore_random_state(outside)


@dataclass
class _Loop:
    method: Method
    train: Dataset
    validation: Dataset | None
    settings: Training
    seed: int
    folder: Path | None
    views: int | Literal["fresh"]
    listener: Listener
    machine: Machine
    interruption: Interruption

    def run(self, resume: bool) -> Fit:
        if self.machine.threads:
            torch.set_num_threads(self.machine.threads)
        self.accelerator = accelerator_for(self.machine)
        self.keeper = Keeper(self.folder, self.accelerator, self.seed)
        self.method.to(self.accelerator.device)
        restored = self.keeper.restore(self.method) if resume else None
        self.resuming = restored is not None
        self.progress = restored or Progress()
        self.started = time.monotonic() - self.progress.position.seconds
        self.clock = Clock(self.accelerator.device)
        self.clock.goes_on(self.progress.timed_seconds, self.progress.timed_steps)
        self.trained: dict[int, torch.nn.Parameter] = {}
        torch.manual_seed(self.seed * 1_000_003 + self.accelerator.process_index * 7919 + 17)
        self.method.history, self.method.scores = self.progress.history, self.progress.scores
        with freed_memory_kept(self.accelerator.device):
            self._stages()
        return self._result()

    # -- stages --------------------------------------------------------------------------------------

    def _stages(self) -> None:
        stages = self.method.stages()
        known = list(stages) if isinstance(stages, Sequence) else None
        if known is not None:
            check(known, self.settings)
        for number, stage in enumerate(stages if known is None else known):
            self.trained |= {id(p): p for update in stage.updates for p in update.parameters()}
            if number < len(self.progress.stage_scores):  # over before the resume
                self.method.scores = self.progress.stage_scores[number]
                continue
            self.selecting = known is None or number == len(known) - 1
            self._stage(number, stage, epochs_of(stage, known, self.settings.epochs))
            self.progress.stage_scores.append(self.progress.scores)
        if not self.progress.finished:
            self.progress.finished = True
            self.keeper.save(self.method, self.progress, {})

    def _stage(self, number: int, stage: Stage, epochs: int) -> None:
        """One stage, from entering it (or from its checkpoint) to its last epoch."""
        if epochs == 0:
            return
        resumed, self.resuming = self.resuming and self.progress.position.stage == number, False
        if not resumed:
            self.progress.new_stage(number)
        self.method.enter(stage)
        selected = select(stage, self.train, self.method.task)
        data = (
            self._begin(stage, number, selected)
            if not resumed
            else begun_before(stage, number, selected, self.folder)
        )
        steps = self._num_steps(stage, data)
        scored = self._scored(stage)
        tools = tools_for(stage, self.settings, epochs=epochs, steps=steps, scored=scored)
        self.wrapped = Wrapped(self.method, self.accelerator, tools, self.machine)
        if resumed:
            self.keeper.restore_tools(tools)
        position = self.progress.position
        if resumed and position.step == 0:
            self.keeper.restore_random()
        self._announce(number, stage, epochs, steps, tools)
        self.clock.new_stage()
        try:
            while position.epoch < epochs and not self.progress.stage_over:
                renews = stage.renew and position.epoch and position.epoch % stage.renew == 0
                if renews and position.step == 0:
                    data = self._begin(stage, number, selected)
                self._epoch(stage, epochs, steps, data, tools)
        finally:
            self.wrapped.release()

    def _begin(self, stage: Stage, number: int, data: Dataset) -> Dataset:
        return begin(stage, number, data, self.folder, write=self.accelerator.is_main_process)

    def _num_steps(self, stage: Stage, data: Dataset) -> int:
        batches = self._loader(stage, data).num_batches
        steps = batches // len(stage.updates) if stage.own_batches else batches
        if steps == 0:
            raise RequestError(
                f"{len(self.train)} training samples give no step of the stage {stage.name!r} "
                f"at batch size {self.settings.batch_size}",
                fix=f"train.batch_size = {max(len(self.train) // len(stage.updates), 1)}",
            )
        return steps

    def _loader(self, stage: Stage, data: Dataset) -> Loader:
        """The batches of the epoch under way; an epoch has the steps of the whole training set."""
        position, world = self.progress.position, self.accelerator.num_processes
        size, limit = self.settings.batch_size, self.machine.micro_batch
        view = position.total_epochs + 1
        if isinstance(self.views, int):
            view = 1 + position.total_epochs % self.views if self.views else 0
        return Loader(
            data,
            size,
            seed=self.seed,
            stage=position.stage,
            epoch=position.epoch + 1,
            start_batch=position.batches,
            drop_last=stage.whole_batches,
            num_workers=self.machine.workers,
            rank=self.accelerator.process_index,
            world=world,
            micro_batches=1 if limit is None else math.ceil(size * stage.views / world / limit),
            view=view,
            length=len(self.train),
            places=stage.views,
            mix=True,
        )

    def _scored(self, stage: Stage) -> bool:
        return stage.scored and self.validation is not None

    def _announce(self, number: int, stage: Stage, epochs: int, steps: int, tools: Tools) -> None:
        trainable = sum(p.numel() for p in self.method.parameters() if p.requires_grad)
        self.method.epochs = epochs
        self.listener.on_stage(StageStart(number, stage.name, epochs, steps, trainable, rates(tools)))

    # -- one epoch -----------------------------------------------------------------------------------

    def _epoch(self, stage: Stage, epochs: int, steps: int, data: Dataset, tools: Tools) -> None:
        progress, position = self.progress, self.progress.position
        batches = iter(self._loader(stage, data))
        self.keeper.restore_random()  # after the iterator was made: making it may draw
        self.method.epoch = position.epoch + 1
        self.means = Means.restored(progress.sums)
        self.notes = Means.restored(progress.notes)
        for step in range(position.step, steps):
            self.method.progress = (position.epoch + step / steps) / epochs
            with self.clock.step():
                samples, index = self._step(step, steps, stage, batches, tools)
                self.clock.samples = samples
                position.step = step + 1
                progress.epoch_samples += samples
                self._tell_step(step, steps, samples, index, tools)
            self._maybe_save(step + 1 < steps, tools)
        self._end_epoch(stage, epochs, tools)

    def _step(
        self, step: int, steps: int, stage: Stage, batches: Iterator[list[Any]], tools: Tools
    ) -> tuple[int, tuple[int, ...]]:
        """Every update that is due, on the same batch or each on its own next one."""
        micros: list[dict[str, Any]] = []
        samples, index = 0, tuple[int, ...]()
        for tool in tools.values():
            if not due(step, tool.update.every, steps):
                continue
            if not micros or stage.own_batches:
                with part("data"):
                    micros = counted(next(batches), self.method.task, self.accelerator)
                    micros = [arranged(micro, self.machine) for micro in micros]
                self.progress.position.batches += 1
                samples += sum(num_samples(micro) for micro in micros) // stage.views
                index = index_of(micros) if self.listener.wants_index else ()
            self._update(tool, micros, alone=len(tools) == 1)
        return samples, index

    def _update(self, tool: Tool, micros: list[dict[str, Any]], *, alone: bool) -> None:
        """One optimizer's step: forward and backward of each micro-batch, then the checked step."""
        name, results = tool.update.name, []
        model, optimizer = self.wrapped.model, self.wrapped.optimizers[tool.update.name]
        with part("optimizer"):
            optimizer.zero_grad()  # another update's loss may have reached these parameters
        for number, micro in enumerate(micros, 1):
            last = number == len(micros)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with part("loss"):
                    losses: Losses = model(micro, update=name)
                with part("backward"):
                    total = losses.total if len(micros) == 1 else losses.total / len(micros)
                    self.accelerator.backward(total)
            results.append(losses)
        refuse_non_finite(results, micros, self.progress.position, self.accelerator)
        with part("optimizer"):
            if tool.clip_norm:
                self.accelerator.clip_grad_norm_(list(tool.update.parameters()), tool.clip_norm)
            optimizer.step()
            if tool.schedule is not None and tool.by_step:
                tool.schedule.step()
        for losses in results:
            self.means.add(losses.terms, 1 / len(results), "" if alone else name)
            self.notes.add(losses.notes, 1 / len(results))

    def _tell_step(self, step: int, steps: int, samples: int, index: tuple[int, ...], tools: Tools) -> None:
        position = self.progress.position
        event = StepEnd(
            position.stage,
            position.epoch + 1,
            step,
            steps,
            samples,
            time.monotonic() - self.started,
            self.means.values(),
            rates(tools),
            index,
        )
        self.listener.on_step(event)

    def _end_epoch(self, stage: Stage, epochs: int, tools: Tools) -> None:
        progress, position = self.progress, self.progress.position
        average_buffers(self.accelerator, self.method)
        terms = averaged(self.accelerator, self.means.values())
        progress.scores = self.method.scores = self._score() if self._scored(stage) else {}
        score = _first(progress.scores, self.method.task.score_name)
        better = progress.choose(score, self.settings.early_stop if self.selecting else 0)
        for tool in tools.values():
            tool.end_epoch(sum(terms.values()) if score is None else score)
        samples = int(summed(self.accelerator, [float(progress.epoch_samples)])[0])
        seconds = time.monotonic() - self.started
        position.next_epoch()
        entry = EpochEnd(
            position.stage,
            stage.name,
            position.epoch,
            epochs,
            seconds,
            samples,
            terms,
            {name: torch.as_tensor(value).tolist() for name, value in self.notes.values().items()},
            progress.scores,
            better,
        )
        progress.history.append(entry.stored())
        progress.epoch_samples = 0
        self._save(tools, chosen=better)
        self.listener.on_epoch(entry)
        self._maybe_stop()

    def _score(self) -> dict[str, Any]:
        device, task = self.accelerator.device, self.method.task
        networks = self.method.networks().items()
        return {name: evaluate(network, self.validation, task, device=device) for name, network in networks}

    # -- saving --------------------------------------------------------------------------------------

    def _maybe_save(self, inside: bool, tools: Tools) -> None:
        """Within an epoch: a checkpoint when one is due, or when a signal asks to stop.

        Several processes save after epochs only: their batch statistics are averaged just there.
        """
        if not inside or self.accelerator.num_processes > 1:
            return
        late = time.monotonic() - self.keeper.written > self.settings.checkpoint_seconds
        if late or self.interruption.signal_number is not None:
            self._save(tools)
        self._maybe_stop()

    def _save(self, tools: Tools, *, chosen: bool = False) -> None:
        position = self.progress.position
        self.progress.sums = self.means.stored() if position.step else {}
        self.progress.notes = self.notes.stored() if position.step else {}
        position.seconds = time.monotonic() - self.started
        self.progress.timed_seconds, self.progress.timed_steps = dict(self.clock.seconds), self.clock.steps
        self.keeper.save(self.method, self.progress, tools, chosen=chosen)

    def _maybe_stop(self) -> None:
        stopping = self.interruption.signal_number
        if stopping is not None:
            saved = "nothing is saved, no folder was given" if self.folder is None else "everything is saved"
            raise Interrupted(stopping, f"stopped on request; {saved}")

    def _result(self) -> Fit:
        last = {name: copied(value) for name, value in method_tensors(self.method).items()}
        progress = self.progress
        return Fit(
            method=self.method,
            history=progress.history,
            scores=progress.scores,
            chosen_scores=progress.chosen_scores,
            chosen_epoch=progress.chosen_epoch,
            seconds=time.monotonic() - self.started,
            cost=cost_of(self.clock, self.method, self.trained.values(), self.accelerator.device),
            weights={"last": last, "chosen": self.keeper.chosen},
        )


def _first(scores: dict[str, Any], name: str) -> float | None:
    return float(next(iter(scores.values()))[name]) if scores else None
