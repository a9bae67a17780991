"""The folders of a run that others load: the student with its card, and the teacher that was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

import limbeck
from limbeck._run import closing
from limbeck._run.export import SCRIPT, Exported
from limbeck._run.folder import RunFolder
from limbeck._run.phases import Trained
from limbeck._run.session import Prepared, Session
from limbeck.methods._composed import Composed
from limbeck.models import composed
from limbeck.models.building import Architecture, Built
from limbeck.models.card import CardFacts
from limbeck.models.folder import save_student

if TYPE_CHECKING:
    from limbeck._run.finish import Final


def save(
    prepared: Prepared,
    folder: RunFolder,
    finals: Mapping[str, Final],
    done: Mapping[str, Trained],
    run: Mapping[str, Any],
    exported: Sequence[Exported],
) -> list[str]:
    """Writes the folders and names what a reader finds in the run.

    Args:
        prepared: the run.
        folder: of the run.
        finals: the networks of the closing table.
        done: the phases.
        run: what run.json will hold.
        exported: the files for the device.
    """
    session = prepared.session
    files = []
    facts = _facts(session, run)
    if _save(session, folder, "student", finals["distilled"].network, _learners(session), facts):
        files.append("student/")
    for number in prepared.trained:
        name = "teacher" if len(session.recipe.all_teachers()) == 1 else f"teacher-{number}"
        network = finals["teacher" if name == "teacher" else f"teacher {number}"].network
        if _save(session, folder, name, network, [session.build_teacher(number)], None):
            files.append(f"{name}/")
    script = [SCRIPT] if any(made.key.startswith("onnx") for made in exported) else []
    return [*files, *(made.file for made in exported), *script]


def _learners(session: Session) -> list[Built]:
    return [session.build_student(number) for number in range(session.num_students)]


def _save(
    session: Session,
    folder: RunFolder,
    name: str,
    network: nn.Module,
    built: Sequence[Built],
    facts: CardFacts | None,
) -> bool:
    """Writes one folder; False for a network that none of the architectures builds, as an ensemble."""
    network, architecture = _described(session, network, built)
    if architecture is None:
        return False
    splits = session.splits
    save_student(
        folder.path / name,
        network,
        architecture=architecture,
        classes=splits.classes,
        kind=splits.task.kind,
        reading=splits.reading,
        facts=facts,
    )
    return True


def _described(
    session: Session, network: nn.Module, built: Sequence[Built]
) -> tuple[nn.Module, Architecture | None]:
    """The network in the form in which it is saved, and what builds it."""
    if not isinstance(network, Composed):
        return network, architecture_of(network, built)
    reuses = any(plan.reused for plan in network.plans)
    numbers = range(len(session.recipe.all_teachers()) if reuses else 0)
    teachers = [session.build_teacher(number).architecture for number in numbers]
    architecture = composed.describe(network, built[0].architecture, teachers)
    return composed.outward(network), architecture


def architecture_of(network: nn.Module, built: Sequence[Built]) -> Architecture | None:
    """The first architecture that builds a network of these parameters."""
    wanted = _shapes(network)
    return next((each.architecture for each in built if _shapes(each.network) == wanted), None)


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def _facts(session: Session, run: Mapping[str, Any]) -> CardFacts:
    """What the run knows of its student, for the model card."""
    recipe, splits = session.recipe, session.splits
    card = session.chosen.method.card
    table = closing.table(run)
    head = ["network", *(name.removeprefix(">") for name in table.head[1:-1]), "note"]
    rows = [dict(zip(head, row, strict=True)) for row in table.rows]
    sizes = ", ".join(f"{len(data):,} {name}" for name, data in splits.parts().items())
    labels = f"; {session.labelled:,} training labels" if session.labelled < len(session.train) else ""
    given = [f"{name} = {value}" for name, value in session.chosen.changed.items()]
    models = [spec.model for spec in recipe.all_teachers()] if card.teacher != "none" else []
    score = run["networks"]["distilled"]["scores"]
    return CardFacts(
        name=recipe.name,
        summary=closing.verdict(run),
        rows=[{name: cell.strip() for name, cell in row.items()} for row in rows],
        table_note="\n".join(table.notes),
        data=[f"{splits.name}: {sizes}{labels}"],
        dataset=splits.name,
        method=[
            f"{card.title}. {card.paper}",
            *([f"teacher: {', '.join(models)}"] if models else []),
            *([", ".join(given)] if given else []),
        ],
        limits=["One run of one seed; measured on the data named above and on nothing else."],
        base_model=[spec.model.removeprefix("hf:") for spec in recipe.all_students() if _on_hub(spec)],
        results=[
            {"metric": name, "value": value, "split": run["score"]["split"]} for name, value in score.items()
        ],
        version=limbeck.__version__,
    )


def _on_hub(spec: Any) -> bool:
    """Whether a student began as a model of the Hub: by name, not as a folder."""
    return spec.model.startswith("hf:") and not spec.model.removeprefix("hf:").startswith((".", "/", "~"))
