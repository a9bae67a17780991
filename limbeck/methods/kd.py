"""Classical knowledge distillation: soft targets beside the labels, and its settled variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, final

from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import (
    TopK,
    bernoulli_divergence,
    bounded_error,
    check_finite,
    check_labels,
    check_mixture,
    check_rest,
    check_temperature,
    decoupled_terms,
    mix_logits,
    smooth_absolute_error,
    softened_divergence,
    sparse_decoupled_terms,
    sparse_divergence,
    squared_error,
    standardize,
    warn_of_constant_rows,
    warn_of_probabilities,
)
from limbeck.losses.soft import Mixing
from limbeck.losses.sparse import Rest
from limbeck.method import Card, Method
from limbeck.methods._agreement import check_read
from limbeck.methods._rows import REDUCTIONS, RowReduction, Rows, reduce_rows, rows_of, supervised
from limbeck.record import Losses, Record
from limbeck.task import Task
from limbeck.teacher import Teacher


class _Paper(NamedTuple):
    """The settings of a variant's paper, in force where the caller gives none."""

    temperature: float
    hard_weight: float
    soft_weight: float
    warmup: int


#: By variant and standardisation, on CIFAR-100 (RepDistiller and mdistiller; 2203.08679; 2403.01427).
_PAPERS = {
    ("soft", False): _Paper(4.0, 0.1, 0.9, warmup=0),
    ("soft", True): _Paper(2.0, 0.1, 9.0, warmup=0),
    ("decoupled", False): _Paper(4.0, 1.0, 1.0, warmup=20),
    ("decoupled", True): _Paper(2.0, 1.0, 9.0, warmup=20),
}


@final
class KD(Method):
    """Knowledge distillation (Hinton, Vinyals, Dean 2015) with its settled variants.

    With z, v the logits of student and teacher, p = softmax(v / T), q = softmax(z / T):

        L = hard_weight * CE(z, y) + soft_weight * r * L_soft        r = min(epoch / warmup, 1)
        soft        L_soft = T^2 KL(p || q)
        decoupled   L_soft = T^2 (target_weight * TCKD + non_target_weight * NCKD)     (2203.08679)

    Terms: `hard`, and `soft`, or `target` and `non_target`; T^2 is inside them. Every setting of None is
    that of the variant's paper on CIFAR-100:

        | variant   | standardize | T | hard | soft | target | non_target | warmup |
        | soft      | no          | 4 | 0.1  | 0.9  |        |            | 0      |
        | soft      | yes         | 2 | 0.1  | 9    |        |            | 0      |
        | decoupled | no          | 4 | 1    | 1    | 1      | 8          | 20     |
        | decoupled | yes         | 2 | 1    | 9    | 1      | 8          | 20     |

    The kind of the task chooses the form of L_soft: classes and tokens as above, labels a Bernoulli KL
    each, values a regression. Samples without a label (-1) have no hard and no decoupled term.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network; `teachers`: several of them, in place of it.
        task: classification unless given.
        variant: `soft` or `decoupled`; the latter needs labels and at least 3 classes.
        temperature: T > 0; 1 to 20 in the paper. Not read for values.
        alpha: 0..1, short for hard_weight = 1 - alpha, soft_weight = alpha.
        hard_weight, soft_weight: >= 0, not both 0, given together. A hard weight of 0 needs no labels.
        target_weight, non_target_weight: >= 0, alpha and beta of the decoupled paper.
        warmup: epochs over which the soft terms are ramped up; 0 is no ramp. Else the loop sets `epoch`.
        standardize: logits with mean 0 and deviation 1 by row before the soft term (2403.01427).
        population: divide by K in the deviation; the authors' code divides by K - 1.
        reduction: `batchmean` unless given, `sum` over the given batch, or `mean` over classes too; for
            tokens `token_mean` unless given, `sequence_mean`, `batchmean` or `sum`. The hard term of labels
            and tokens follows it, that of classes and values is always the mean.
        regression: for values: `mse`, `smooth_l1`, or `bounded` (the teacher is only a bound).
        margin: >= 0, of `bounded`.
        mixing: of several teachers: `arithmetic` or `geometric` mean of their softened probabilities.
        teacher_weights: of several teachers, summing to 1; equal if None.
        rest: what becomes of the classes that a top-k teacher dropped, see `sparse_divergence`.
        extrapolate: takes a top-k teacher at a temperature that was not stored.
    """

    card = Card(
        slug="kd",
        title="Knowledge distillation (soft and hard targets)",
        paper="Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531, 2015; "
        "decoupled: Zhao et al., CVPR 2022, arXiv 2203.08679; "
        "standardised: Sun et al., CVPR 2024, arXiv 2403.01427",
        equations=(
            "L = hard_weight * CE(z, y) + soft_weight * min(epoch / warmup, 1) * L_soft",
            "soft: L_soft = T^2 mean_b sum_k p log(p / q), p = softmax(v / T), q = softmax(z / T)",
            "decoupled: L_soft = T^2 mean_b (target_weight * TCKD + non_target_weight * NCKD)",
            "standardize: z, v -> (z - mean z) / (1e-7 + std z) by row, in the soft term alone",
        ),
        tasks=("classes", "labels", "values", "tokens"),
        needs=("labels, unless hard_weight is 0", "decoupled: labels and at least 3 classes"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "variant": "soft or decoupled",
            "temperature": "T > 0; paper 1 to 20; CIFAR-100 4, standardised 2",
            "alpha": "0 to 1, short for hard_weight = 1 - alpha, soft_weight = alpha; 0.9",
            "hard_weight": ">= 0, weight of the labels; 0.1, decoupled 1",
            "soft_weight": ">= 0, weight of the teacher; 0.9, decoupled 1, standardised 9",
            "target_weight": ">= 0, of the target part, alpha in the decoupled paper; 1",
            "non_target_weight": ">= 0, of the non-target part, beta there; 8 (2 to 8; ImageNet 0.5)",
            "warmup": "epochs of the ramp of the soft terms, 0 is none; decoupled 20 (ImageNet 1)",
            "standardize": "standardised logits in the soft term; no",
            "population": "deviation over K in place of K - 1; no",
            "reduction": "batchmean, sum or mean; tokens: token_mean, sequence_mean, batchmean or sum",
            "regression": "values: mse, smooth_l1 or bounded; mse",
            "margin": ">= 0, of bounded; 0",
            "mixing": "several teachers: arithmetic or geometric; arithmetic",
            "teacher_weights": "several teachers: sum to 1; equal",
            "rest": "top-k teacher: bucket, uniform or renormalize; bucket",
            "extrapolate": "top-k teacher at a temperature that was not stored; no",
        },
        minimum={"soft": 0.0},
        consulted="megvii-research/mdistiller, sunshangquan/logit-standardization-KD, "
        "HobbitLong/RepDistiller, yoshitomo-matsubara/torchdistill, penghui-yang/L2D, arcee-ai/DistillKit, "
        "peterliht/knowledge-distillation-pytorch, DistilBERT's distiller",
        inferred=(
            "teacher and student see the same view",
            "several teachers: each is softened before the arithmetic mean, standardised before mixing",
            "decoupled: samples without a label are left out of its terms",
            "tokens: the hard term has the mask and the reduction of the soft term",
            "values: the hard term is the mean squared error, bounded after Chen et al. 2017",
        ),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher | None = None,
        *,
        teachers: Sequence[nn.Module | Teacher] | None = None,
        task: Task | None = None,
        variant: Literal["soft", "decoupled"] = "soft",
        temperature: float | None = None,
        alpha: float | None = None,
        hard_weight: float | None = None,
        soft_weight: float | None = None,
        target_weight: float = 1.0,
        non_target_weight: float = 8.0,
        warmup: int | None = None,
        standardize: bool = False,
        population: bool = False,
        reduction: RowReduction | None = None,
        regression: Literal["mse", "smooth_l1", "bounded"] = "mse",
        margin: float = 0.0,
        mixing: Mixing = "arithmetic",
        teacher_weights: Sequence[float] | None = None,
        rest: Rest = "bucket",
        extrapolate: bool = False,
    ) -> None:
        if (teacher is None) == (teachers is None):
            raise RequestError("kd learns from `teacher` or from several `teachers`; give one of the two")
        given = [teacher] if teacher is not None else list(teachers or ())
        weights = check_mixture(len(given), mixing, teacher_weights)
        super().__init__(student, given[0], task=task)
        self.teachers = [
            each if isinstance(each, Teacher) else Teacher(each, task=self.task) for each in given
        ]
        self.mixing, self.teacher_weights = mixing, weights
        paper = _PAPERS.get((variant, standardize))
        if paper is None:
            raise RequestError(f"variant {variant!r}; needed soft or decoupled")
        self.variant, self.standardize, self.population = variant, standardize, population
        self.temperature = paper.temperature if temperature is None else temperature
        self.alpha = alpha
        self.hard_weight, self.soft_weight = _weights(paper, alpha, hard_weight, soft_weight)
        self.target_weight, self.non_target_weight = target_weight, non_target_weight
        self.warmup = paper.warmup if warmup is None else warmup
        self.reduction = reduction or REDUCTIONS[self.task.kind][0]
        self.regression, self.margin = regression, margin
        self.rest, self.extrapolate = rest, extrapolate
        self._looked = False
        self._check_settings()

    def forward(self, batch: Any, update: str = "student") -> Losses:
        """As in every method; several teachers answer with a list of outputs."""
        batch = self.task.batch(batch)
        outputs = [teacher(batch).output for teacher in self.teachers]
        teacher = Record(outputs if len(outputs) > 1 else outputs[0])
        return self.losses(self.student_taps(batch), teacher, batch)

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The hard and the soft terms.

        Args:
            student: output [B, K], for tokens [B, L, V].
            teacher: output of the same shape, or its largest entries as `TopK`; a list of several teachers'.
            batch: normal form; `targets` where there are labels, `mask` [B, L] where not all positions count.
        """
        rows = rows_of(self.task, student.output, teacher.output, batch)
        self._look(rows)
        terms: dict[str, Tensor] = {}
        weights: dict[str, float | Tensor] = {}
        if self.hard_weight > 0:
            terms["hard"], weights["hard"] = self._hard(student.output, batch), self.hard_weight
        counted, width = self._counted(rows), student.output.shape[-1]
        ramp = min(self.epoch / self.warmup, 1.0) if self.warmup else 1.0
        for name, (values, weight) in self._soft(rows).items():
            terms[name] = reduce_rows(values, rows.mask, batch, self.reduction, counted=counted, width=width)
            weights[name] = self.soft_weight * ramp * weight
        return Losses(terms, weights)

    def top_k_temperatures(self) -> Sequence[float] | None:
        """Its own; none for kinds without softmax over classes, and where several teachers are mixed."""
        by_class = self.task.kind in ("classes", "tokens") and len(self.teachers) == 1
        return (self.temperature,) if by_class else None

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        """The supervised term on the raw outputs at T = 1, see `supervised`."""
        if batch.get("targets") is None:
            raise RequestError(
                f"hard_weight {self.hard_weight:g} needs labels, and the batch has no targets",
                fix="alpha = 1 trains on the teacher alone",
            )
        return supervised(self.task, output, batch, self.reduction)

    def _soft(self, rows: Rows) -> dict[str, tuple[Tensor, float]]:
        """The soft terms by row [N], T^2 inside, each with its weight within L_soft."""
        student, teacher = rows.student, self._teacher(rows.teachers)
        if self.standardize:
            student = standardize(student, population=self.population)
        if self.variant == "decoupled":
            target, non_target = self._decoupled(student, teacher, rows.targets)
            return {
                "target": (target, self.target_weight),
                "non_target": (non_target, self.non_target_weight),
            }
        if isinstance(teacher, TopK):
            values = sparse_divergence(
                student, teacher, self.temperature, "none", rest=self.rest, extrapolate=self.extrapolate
            )
            return {"soft": (values, 1.0)}
        if self.task.kind == "values":
            return {"soft": (self._regression(student, teacher, rows.targets), 1.0)}
        divergence = bernoulli_divergence if self.task.kind == "labels" else softened_divergence
        return {"soft": (divergence(student, teacher, self.temperature, "none"), 1.0)}

    def _teacher(self, outputs: Sequence[Tensor | TopK]) -> Tensor | TopK:
        """One teacher's output: standardised, and several mixed."""
        if self.standardize:
            outputs = [
                each.standardized(population=self.population)
                if isinstance(each, TopK)
                else standardize(each, population=self.population)
                for each in outputs
            ]
        dense = [each for each in outputs if isinstance(each, Tensor)]
        if len(dense) < len(outputs) and self.task.kind not in ("classes", "tokens"):
            raise RequestError(f"top-k targets are for classes; the task has {self.task.kind}")
        if len(outputs) == 1:
            return outputs[0]
        if len(dense) < len(outputs):
            raise RequestError("top-k targets of several teachers cannot be mixed", fix="keep all logits")
        return mix_logits(dense, self.temperature, self.mixing, self.teacher_weights)

    def _decoupled(
        self, student: Tensor, teacher: Tensor | TopK, targets: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        assert targets is not None  # as _counted has checked
        if isinstance(teacher, TopK):
            # A sample without a label does not count; a class that was kept stands in for its target.
            targets = targets.where(targets >= 0, teacher.index[:, 0])
            return sparse_decoupled_terms(
                student, teacher, targets, self.temperature, extrapolate=self.extrapolate
            )
        return decoupled_terms(student, teacher, targets.clamp(min=0), self.temperature)

    def _regression(self, student: Tensor, teacher: Tensor, targets: Tensor | None) -> Tensor:
        if self.regression == "mse":
            return squared_error(student, teacher, "none")
        if self.regression == "smooth_l1":
            return smooth_absolute_error(student, teacher, "none")
        assert targets is not None  # as _counted has checked
        return bounded_error(student, teacher, targets.reshape(student.shape), self.margin, "none")

    def _counted(self, rows: Rows) -> Tensor | None:
        """The rows with a label, where the soft term needs one; None where all rows count."""
        if self.variant == "soft" and self.regression != "bounded":
            return None
        if rows.targets is None:
            form = "decoupled" if self.variant == "decoupled" else "bounded"
            raise RequestError(f"the {form} term needs labels, and the batch has no targets")
        rows.check_targets(by_value=self.variant == "soft")
        if self.variant == "decoupled":
            _check_three_classes(rows.student.shape[-1])
            return None if rows.mask is not None else rows.targets >= 0
        return ~rows.targets.reshape(rows.student.shape).isnan().any(1)

    def _look(self, rows: Rows) -> None:
        """Looks at the values: in every step on the CPU, else at the first batch alone.

        Reading a value back from an accelerator would stall it in every step.
        """
        first, self._looked = not self._looked, True
        if not first and rows.student.device.type != "cpu":
            return
        for each in rows.teachers:
            check_finite(each.value if isinstance(each, TopK) else each, "teacher outputs")
        if self.task.kind not in ("classes", "tokens"):
            return
        if rows.targets is not None:
            check_labels(rows.targets, rows.student.shape[-1], unlabelled=rows.mask is None)
        if self.standardize:
            warn_of_constant_rows(rows.student)
        if first:
            warn_of_probabilities(rows.student, "student")
            for each in rows.teachers:
                if isinstance(each, Tensor):
                    warn_of_probabilities(each, "teacher")

    def _check_settings(self) -> None:
        kind = self.task.kind
        check_temperature(self.temperature)
        check_rest(self.rest)
        if self.reduction not in REDUCTIONS[kind]:
            raise RequestError(
                f"reduction {self.reduction!r} for {kind}; needed {', '.join(REDUCTIONS[kind])}"
            )
        if self.regression not in ("mse", "smooth_l1", "bounded"):
            raise RequestError(f"regression {self.regression!r}; needed mse, smooth_l1 or bounded")
        if kind != "values" and self.regression != "mse":
            raise RequestError(f"regression {self.regression!r} is for values; the task has {kind}")
        by_class = self.variant == "decoupled" or self.standardize or len(self.teachers) > 1
        if by_class and kind not in ("classes", "tokens"):
            raise RequestError(
                f"decoupled or standardised terms and several teachers are for classes; the task has {kind}"
            )
        for name in ("target_weight", "non_target_weight", "warmup", "margin"):
            if not getattr(self, name) >= 0:
                raise RequestError(f"{name} {getattr(self, name)}; needed a number >= 0")
        self._check_read()
        if self.variant == "decoupled":
            _check_three_classes(getattr(self.task, "num_classes", None))

    def _check_read(self) -> None:
        """Refuses a setting that another one keeps from being read."""
        soft, one = self.variant == "soft", len(self.teachers) == 1
        check_read(
            self,
            ("target_weight", 1.0, soft, 'variant = "decoupled"'),
            ("non_target_weight", 8.0, soft, 'variant = "decoupled"'),
            ("population", False, not self.standardize, "standardize = true"),
            ("margin", 0.0, self.regression != "bounded", 'regression = "bounded"'),
            ("mixing", "arithmetic", one, "several teachers"),
            ("rest", "bucket", not soft, 'variant = "soft"'),
        )


def _weights(
    paper: _Paper, alpha: float | None, hard: float | None, soft: float | None
) -> tuple[float, float]:
    """Hard and soft weight from either form, or the paper's."""
    if alpha is not None:
        if hard is not None or soft is not None:
            raise RequestError("alpha beside hard_weight or soft_weight; give alpha, or both weights")
        if not 0 <= alpha <= 1:
            raise RequestError(f"alpha {alpha}; needed 0 to 1 (hard_weight = 1 - alpha, soft_weight = alpha)")
        return 1 - alpha, alpha
    if hard is None and soft is None:
        return paper.hard_weight, paper.soft_weight
    if hard is None or soft is None:
        raise RequestError(f"hard_weight {hard} and soft_weight {soft}; give both, or alpha alone")
    if not (hard >= 0 and soft >= 0 and hard + soft > 0):
        raise RequestError(f"hard_weight {hard} and soft_weight {soft}; needed >= 0, and not both 0")
    return hard, soft


def _check_three_classes(number: int | None) -> None:
    if number is not None and number < 3:
        raise RequestError(
            f"decoupled distillation of {number} classes; it needs at least 3: with 2 there is no choice "
            "among the classes beside the target, and the non-target term is 0",
            fix='variant = "soft"',
        )
