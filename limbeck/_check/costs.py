"""What a run needs: memory, disk, the teacher's stored answers, whole batches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from limbeck._check.desk import Desk
from limbeck._check.teachers import Given
from limbeck._run import caching
from limbeck._run.caching import Caching, teacher_on
from limbeck._run.plan import Plan
from limbeck._run.session import Session
from limbeck._show import figures
from limbeck._taps.survey import survey
from limbeck.cache import verify
from limbeck.data.loader import batch_sizes
from limbeck.errors import LimbeckError
from limbeck.method import Method
from limbeck.task import num_samples

#: A cache up to so many bytes is read as a whole.
_READ = 2e9
_FEW = 4  # samples by which the memory of a batch is told
_MASS = 0.5  # of the probability, which top-k should keep
_WEIGHT_BYTES = 16  # a parameter in training: itself, gradient, momentum, the chosen epoch's


def memory_of_a_step(session: Session, students: Sequence[nn.Module], teachers: Sequence[nn.Module]) -> int:
    """Bytes that a training step will hold at least, told from a few samples: values of layers, weights."""
    task = session.splits.task
    rows = session.machine.micro_batch or min(session.recipe.train.batch_size, len(session.train))
    few = task.batch(session.train.batch(list(range(min(_FEW, len(session.train))))))
    values = weights = 0
    for network in students:
        events = survey(network, few, task, training=True).events
        values += sum(e.value.numel() * e.value.element_size() for e in events if e.value is not None)
    for network in (*students, *teachers):
        weights += sum(p.numel() for p in network.parameters())
    return values * rows // max(num_samples(few), 1) + _WEIGHT_BYTES * weights


def check_memory(desk: Desk, session: Session, need: int, limit: int | None) -> None:
    """A step that no memory holds; known before it is taken."""
    desk.looks("K111")
    if limit is None or need <= limit:
        return
    rows = session.machine.micro_batch or session.recipe.train.batch_size
    part = max(2 ** int(rows * limit / need / 2).bit_length() // 2, 1)
    desk.finds(
        "K111",
        f"a step needs {figures.size(need)} of memory, and there are {figures.size(limit)}",
        *("train", "batch_size"),
        fix=f"micro_batch = {part} in [machine]: the same batch in parts",
    )


def check_plan(desk: Desk, plan: Plan) -> None:
    """Memory and disk that the run will take."""
    desk.looks("K112", "K211")
    disk, memory = plan.limits.get("disk"), plan.limits.get("memory")
    if disk is not None and plan.disk > disk:
        desk.finds(
            "K112",
            f"the run writes {figures.size(plan.disk)}, and {figures.size(disk)} of disk are free",
            "name",
            fix="make room, --output elsewhere, or store less: cache.dtype, cache.top_k",
        )
    elif disk is not None and plan.disk > 0.8 * disk:
        desk.finds(
            "K211",
            f"the run writes {figures.size(plan.disk)} of {figures.size(disk)} free disk",
            "name",
            fix="make room, or --output elsewhere",
        )
    if memory is not None and plan.memory is not None and plan.memory > 0.8 * memory:
        desk.finds(
            "K211",
            f"the run holds {figures.size(plan.memory)} of {figures.size(memory)} memory",
            *("train", "batch_size"),
            fix="micro_batch in [machine], which leaves the batch as it is",
        )


def check_batches(desk: Desk, session: Session, students: Sequence[nn.Module]) -> None:
    """Batch normalisation of parts of a batch; what becomes of a last batch of one sample."""
    desk.looks("K210")
    total, size = len(session.train), session.recipe.train.batch_size
    rest = total % size
    if rest == 1 and total > size:
        last = batch_sizes(total, size)[-1]
        desk.notes.append(
            f"{total:,} samples in batches of {size}: the odd one joins the last batch, which has {last}"
        )
    part = session.machine.micro_batch
    normalised = any(isinstance(m, _BatchNorm) for network in students for m in network.modules())
    if part is not None and part < size and normalised:
        desk.finds(
            "K210",
            f"batch normalisation of the student sees {part} samples of a batch of {size}",
            *("machine", "micro_batch"),
            fix=f"batch_size = {part} in [train], or a larger micro_batch",
        )


def check_cache(desk: Desk, session: Session, method: Method, teachers: Sequence[Given]) -> None:
    """The stored answers of teachers with given weights: theirs, and whole."""
    known = [each for each in teachers if each.known]
    if session.recipe.cache.mode == "off" or method.card.teacher != "outputs" or not known:
        return
    desk.looks("K110")
    kept = Caching(
        True, store=caching.store_of(session, method), layers=tuple(sorted(method.tapped["teacher"]))
    )
    for teacher in known:
        try:
            cached = teacher_on(session, teacher.number, teacher.network, kept)
            if not cached.folder.exists():
                continue
            cached.missing()  # compares the key and some answers
            damaged = verify(cached.folder).damaged if _small(cached.folder) else ()
        except LimbeckError as error:
            desk.refused("K110", error, "cache", "folder")
            continue
        if damaged:
            desk.finds(
                "K110",
                damaged[0],
                *("cache", "folder"),
                fix=f"delete {cached.folder.as_posix()}: the answers are written again",
            )


def _small(folder: Path) -> bool:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) <= _READ


def check_mass(desk: Desk, found: Caching, teachers: Sequence[Given]) -> None:
    """Top-k answers that keep little of the teacher's probability."""
    if found.kept_mass is None or not all(teacher.known for teacher in teachers):
        return
    desk.looks("K204")
    if found.kept_mass < _MASS:
        hottest = max(found.store.temperatures)
        desk.finds(
            "K204",
            f"the top {found.store.top_k} classes hold {found.kept_mass:.0%} of the probability at "
            f"temperature {hottest:g}".replace("%", " %"),
            *("cache", "top_k"),
            fix=f"top_k = {2 * (found.store.top_k or 1)}, or none: all classes are kept",
        )
