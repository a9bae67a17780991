"""CMKD: the values and the order of the teacher's classes, matched by correlation, weighted by difficulty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, final, get_args

import torch
from torch import Tensor, nn

from limbeck.errors import RequestError
from limbeck.losses import (
    TopK,
    check_finite,
    check_labels,
    check_not_negative,
    check_temperature,
    class_correlation_error,
    hard_rank,
    pearson,
    sigmoid_rank,
    soft_rank,
    standardize,
    varies,
    warn_of_probabilities,
    widen,
)
from limbeck.method import Card, Method
from limbeck.methods._agreement import check_choice, check_read
from limbeck.methods._rows import REDUCTIONS, Rows, check_labelled, reduce_rows, rows_of, supervised
from limbeck.record import Losses, Record
from limbeck.task import Task
from limbeck.teacher import Teacher

PearsonOn = Literal["probabilities", "logits"]
Spearman = Literal["correlation", "squared"]
Ranks = Literal["projection", "sigmoid"]
TeacherRanks = Literal["soft", "hard"]
Weighting = Literal["complementary", "inverse", "fixed"]
Difficulty = Literal["teacher", "student", "label"]

_SMALLEST = 3  # classes: two values have the correlation 1 or -1 and nothing between


class _Compared(NamedTuple):
    """Standardised logits of both networks [N, K], and which rows have a correlation [N]."""

    student: Tensor
    teacher: Tensor
    valid: Tensor


@final
class CMKD(Method):
    """CMKD (Niu, Wang, Cai, Hou 2024): correlation matching, robust to a much stronger teacher.

    With z, v the logits of student and teacher, x, u the same standardised by row, r(.) soft ranks:

        L      = hard_weight * CE(z, y) + pearson_weight * L_P + spearman_weight * L_S
        L_P    = mean_i (1 - h_i) * (1 - rho(softmax(x_i / temperature), softmax(u_i / temperature)))
        L_S    = mean_i h_i * (1 - rho(r(x_i), r(u_i)))
        h_i    = entropy(softmax(v_i / difficulty_temperature)) / log K, in 0..1, no gradient

    rho is Pearson's correlation over the K classes of a row: of the soft ranks it is Spearman's. Scaling and
    shifting either network's logits changes neither correlation. A row of equal logits, of either network,
    has none: it counts as 1 with gradient 0, as for a student whose last layer starts at 0. Gradients grow
    with 1 / deviation of the student's logits; where these start small, clip them.

    The body of the paper was not to be had: its abstract, a review and a later paper's sentence give the
    terms, the standardisation, the differentiable ranks and the weights by difficulty. The card's `inferred`
    says what is ours; each has an option for the other reading.

    Terms: `hard`; `pearson` L_P and `spearman` L_S, with the weights of the samples inside; `intra` if asked
    for. Notes: `pearson_unweighted` and `spearman_unweighted`, the means without the weights of the samples;
    `pearson_share` and `spearman_share`, the mean of these; `difficulty` (mean), `difficulty_low` and
    `difficulty_high` (10 and 90 percent): where these two are nearer than 0.05, as with a teacher that is
    sure of its training data, raise difficulty_temperature; `undefined`, the share of rows of equal logits.

    Args:
        student: trains, and is deployed alone.
        teacher: the trained network, of the same classes, at least 3.
        task: classification unless given; of tokens the valid positions are the rows.
        hard_weight: gamma >= 0; 1. 0 needs no labels.
        pearson_weight, spearman_weight: alpha, beta >= 0; 2. At 0 the term is left out.
        intra_weight: >= 0, of DIST's term over the batch, mean_k (1 - rho) of the columns of both
            probabilities; 0 is off, 2 in DIST.
        temperature: tau > 0, of the softmax over standardised logits; 2.
        pearson_on: `probabilities`, or `logits` (no softmax).
        tau_squared: multiplies the weights of the terms of probabilities by temperature^2, as DIST's code.
        population: divide by K in the deviation of the standardisation, in place of K - 1.
        spearman: `correlation` of ranks, or `squared`, 6 sum (r - r')^2 / (K (K^2 - 1)), the same for ranks
            without ties.
        ranks: `projection`, O(K log^2 K), or `sigmoid`, which holds K^2 numbers a row.
        teacher_ranks: `soft`, of the same strength so that equality gives 0, or `hard`.
        rank_strength: epsilon > 0 of `projection`, in deviations; 3 / K unless given.
        sigmoid_scale: > 0 of `sigmoid`, in deviations; 2 / K unless given.
        weighting: `complementary`, 1 - h and h: the harder, the more the order counts; `inverse`, h and
            1 - h; `fixed`, both 1.
        difficulty_from: h from the entropy of the `teacher` or of the `student`, or 1 - the teacher's
            probability of the `label`; where a sample has no label, the teacher's entropy.
        difficulty_temperature: > 0, of h, on the logits as they are; 1.
    """

    card = Card(
        slug="cmkd",
        title="CMKD (correlation matching)",
        paper="Niu, Wang, Cai, Hou: Efficient and Robust Knowledge Distillation from A Stronger Teacher "
        "Based on Correlation Matching, arXiv 2410.06561, 2024",
        equations=(
            "L = hard_weight * CE(z, y) + pearson_weight * L_P + spearman_weight * L_S",
            "L_P = mean_i (1 - h_i) * (1 - rho(softmax(x_i / temperature), softmax(u_i / temperature)))",
            "L_S = mean_i h_i * (1 - rho(r(x_i), r(u_i))), r soft ranks, x, u standardised logits",
            "h_i = entropy(softmax(v_i / difficulty_temperature)) / log K",
        ),
        tasks=("classes", "tokens"),
        needs=("at least 3 classes, the same for both networks", "labels, unless hard_weight is 0"),
        teacher="outputs",
        deployed="the student alone",
        hyperparameters={
            "hard_weight": ">= 0, gamma; paper unknown; 1",
            "pearson_weight": ">= 0, alpha; paper unknown; 2",
            "spearman_weight": ">= 0, beta; paper unknown; 2",
            "intra_weight": ">= 0, of DIST's class-wise term, which makes a sample's loss depend on its "
            "batch; 0 (DIST 2)",
            "temperature": "tau > 0, on standardised logits; paper unknown; 2",
            "pearson_on": "probabilities or logits; probabilities",
            "tau_squared": "weights of terms of probabilities times temperature^2, as DIST's code; no",
            "population": "deviation over K in place of K - 1; no",
            "spearman": "correlation or squared (differences of ranks); correlation",
            "ranks": "projection or sigmoid; projection",
            "teacher_ranks": "soft or hard; soft",
            "rank_strength": "epsilon > 0, projection, in deviations of a row; 3 / K",
            "sigmoid_scale": "> 0, sigmoid, in deviations of a row; 2 / K",
            "weighting": "complementary, inverse or fixed; complementary",
            "difficulty_from": "teacher, student or label; teacher",
            "difficulty_temperature": "> 0, tau_h, on logits as they are; 1",
        },
        minimum={"pearson": 0.0, "spearman": 0.0},
        consulted="google-research/fast-soft-sort, teddykoker/torchsort, hunto/DIST_KD, "
        "hunto/image_classification_sota, sunshangquan/logit-standardization-KD; none of the authors' exists",
        inferred=(
            "all numbers: temperature 2, weights 2, 2 and 1, rank_strength 3 / K, sigmoid_scale 2 / K",
            "the unbiased deviation in the standardisation (option population)",
            "Pearson on probabilities (option pearson_on), without temperature^2 (option tau_squared)",
            "ranks by projection (option ranks); Spearman as correlation of soft ranks (option spearman); "
            "the teacher's ranks are soft too (option teacher_ranks)",
            "difficulty is the entropy of the teacher's softmax over log K, without gradient (options "
            "difficulty_from, difficulty_temperature); label: the entropy where a sample has no label",
            "the harder a sample, the more its order counts (option weighting)",
            "the weights of the samples are inside the terms; unweighted means are notes",
            "rows of equal logits count as 1 without gradient",
            "the class-wise term (option intra_weight): equal probabilities stand for rows of equal logits, "
            "classes that do not vary in the batch count as 1; tau_squared is for it too",
        ),
    )

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | Teacher,
        *,
        task: Task | None = None,
        hard_weight: float = 1.0,
        pearson_weight: float = 2.0,
        spearman_weight: float = 2.0,
        intra_weight: float = 0.0,
        temperature: float = 2.0,
        pearson_on: PearsonOn = "probabilities",
        tau_squared: bool = False,
        population: bool = False,
        spearman: Spearman = "correlation",
        ranks: Ranks = "projection",
        teacher_ranks: TeacherRanks = "soft",
        rank_strength: float | None = None,
        sigmoid_scale: float | None = None,
        weighting: Weighting = "complementary",
        difficulty_from: Difficulty = "teacher",
        difficulty_temperature: float = 1.0,
    ) -> None:
        if intra_weight > 0:
            self.card = replace(self.card, couples_batch=True)
        super().__init__(student, teacher, task=task)
        self.hard_weight, self.intra_weight = hard_weight, intra_weight
        self.pearson_weight, self.spearman_weight = pearson_weight, spearman_weight
        self.temperature, self.pearson_on, self.tau_squared = temperature, pearson_on, tau_squared
        self.population, self.spearman = population, spearman
        self.ranks, self.teacher_ranks = ranks, teacher_ranks
        self.rank_strength, self.sigmoid_scale = rank_strength, sigmoid_scale
        self.weighting, self.difficulty_from = weighting, difficulty_from
        self.difficulty_temperature = difficulty_temperature
        self._looked = False
        self._check_settings()

    def losses(self, student: Record, teacher: Record, batch: Mapping[str, Any]) -> Losses:
        """The hard, the Pearson and the Spearman term, and the class-wise one if asked for.

        Args:
            student: output [B, K], for tokens [B, L, V].
            teacher: output of the same shape.
            batch: normal form; `targets` where there are labels, `mask` [B, L] where not all positions count.
        """
        rows = rows_of(self.task, student.output, teacher.output, batch)
        other = self._checked(rows)
        terms: dict[str, Tensor] = {}
        if self.hard_weight > 0:
            terms["hard"] = self._hard(student.output, batch)
        compared = self._compare(rows.student, other)
        shares, notes = self._shares(rows, other)
        for name, values in self._by_row(compared).items():
            share = shares.get(name)
            terms[name] = self._mean(values if share is None else share * values, rows, batch)
            notes[f"{name}_unweighted"] = self._mean(values.detach(), rows, batch)
            if share is not None:
                notes[f"{name}_share"] = self._mean(share, rows, batch)
        if self.intra_weight > 0:
            terms["intra"] = self._intra(compared)
        notes["undefined"] = self._mean((~compared.valid).to(compared.teacher.dtype), rows, batch)
        weights = self._weights()
        return Losses(terms, {name: weights[name] for name in terms}, notes)

    def _mean(self, values: Tensor, rows: Rows, batch: Mapping[str, Any]) -> Tensor:
        """Over samples, or over the valid positions of all sequences."""
        return reduce_rows(values, rows.mask, batch, REDUCTIONS[self.task.kind][0])

    def _weights(self) -> dict[str, float]:
        square = self.temperature**2 if self.tau_squared else 1.0
        return {
            "hard": self.hard_weight,
            "pearson": self.pearson_weight * (square if self.pearson_on == "probabilities" else 1.0),
            "spearman": self.spearman_weight,
            "intra": self.intra_weight * square,
        }

    def _hard(self, output: Tensor, batch: Mapping[str, Any]) -> Tensor:
        check_labelled(batch, self.hard_weight)
        return supervised(self.task, output, batch, REDUCTIONS[self.task.kind][0])

    def _compare(self, student: Tensor, teacher: Tensor) -> _Compared:
        """Standardised rows; those without a correlation are replaced, so that no gradient is infinite."""
        valid = varies(student) & varies(teacher)
        ramp = torch.arange(student.shape[-1], device=student.device)
        own, other = (
            standardize(torch.where(valid[:, None], widen(each), ramp), population=self.population)
            for each in (student, teacher.detach())
        )
        return _Compared(own, other, valid)

    def _by_row(self, compared: _Compared) -> dict[str, Tensor]:
        """The terms by row [N], without weights; a row without a correlation counts as 1, gradient 0."""
        values = {}
        if self.pearson_weight > 0:
            values["pearson"] = 1 - pearson(*self._values(compared.student, compared.teacher))
        if self.spearman_weight > 0:
            values["spearman"] = self._spearman(compared.student, compared.teacher)
        return {name: torch.where(compared.valid, value, 1.0) for name, value in values.items()}

    def _values(self, *standardized: Tensor) -> tuple[Tensor, ...]:
        if self.pearson_on == "logits":
            return standardized
        return tuple((each / self.temperature).softmax(-1) for each in standardized)

    def _spearman(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.teacher_ranks == "hard":
            own, other = self._rank(student), hard_rank(teacher)
        else:
            own, other = self._rank(torch.cat((student, teacher))).chunk(2)  # one sort is cheaper than two
        if self.spearman == "correlation":
            return 1 - pearson(own, other)
        classes = student.shape[-1]
        return 6 * (own - other).square().sum(-1) / (classes * (classes**2 - 1))

    def _rank(self, values: Tensor) -> Tensor:
        classes = values.shape[-1]
        if self.ranks == "sigmoid":
            return sigmoid_rank(values, self.sigmoid_scale or 2 / classes)
        return soft_rank(values, self.rank_strength or 3 / classes)

    def _intra(self, compared: _Compared) -> Tensor:
        """DIST's term by class, over the rows of the batch."""
        own, other = (
            # Equal probabilities for the rows that were replaced.
            (each.masked_fill(~compared.valid[:, None], 0) / self.temperature).softmax(-1)
            for each in (compared.student, compared.teacher)
        )
        return class_correlation_error(own, other)

    def _shares(self, rows: Rows, teacher: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The weights of the samples by term [N], none where fixed; and what is noted of the difficulty."""
        if self.weighting == "fixed":
            return {}, {}
        hard = self._difficulty(rows, teacher)
        easy = 1 - hard
        names = ("pearson", "spearman") if self.weighting == "complementary" else ("spearman", "pearson")
        notes = {}
        if len(hard):
            low, high = hard.quantile(hard.new_tensor([0.1, 0.9]))
            notes = {"difficulty": hard.mean(), "difficulty_low": low, "difficulty_high": high}
        return dict(zip(names, (easy, hard), strict=True)), notes

    @torch.no_grad()
    def _difficulty(self, rows: Rows, teacher: Tensor) -> Tensor:
        """How hard each row is, h, [N] in 0..1."""
        logits = rows.student if self.difficulty_from == "student" else teacher
        logs = (widen(logits) / self.difficulty_temperature).log_softmax(-1)
        entropy = -(logs.exp() * logs).sum(-1) / math.log(logits.shape[-1])
        if self.difficulty_from == "label":
            if rows.targets is None:
                raise RequestError(
                    'difficulty_from = "label" needs labels, and the batch has no targets',
                    fix='difficulty_from = "teacher"',
                )
            rows.check_targets(by_value=False)
            own = logs.gather(-1, rows.targets.clamp(min=0)[:, None])[:, 0].exp()
            entropy = torch.where(rows.targets >= 0, 1 - own, entropy)
        return entropy.clamp(0, 1)  # rounding can give more than 1, and with it a weight below 0

    def _checked(self, rows: Rows) -> Tensor:
        """The teacher's rows; looks at the values in every step on the CPU, else at the first batch alone.

        Reading a value back from an accelerator would stall it in every step; the loop refuses a loss that is
        not finite.
        """
        teacher = rows.teachers[0]
        if isinstance(teacher, TopK):
            raise RequestError(
                "cmkd compares all classes, and the teacher gave its largest alone", fix="keep all logits"
            )
        _check_classes(rows.student.shape[-1])
        first, self._looked = not self._looked, True
        if not first and rows.student.device.type != "cpu":
            return teacher
        check_finite(teacher, "teacher outputs")
        check_finite(rows.student, "student outputs", fix="a lower learning rate, or clipped gradients")
        if rows.targets is not None:
            check_labels(rows.targets, rows.student.shape[-1], unlabelled=rows.mask is None)
        if first:
            warn_of_probabilities(rows.student, "student")
            warn_of_probabilities(teacher, "teacher")
        return teacher

    def _check_settings(self) -> None:
        for name, options in (
            ("pearson_on", PearsonOn),
            ("spearman", Spearman),
            ("ranks", Ranks),
            ("teacher_ranks", TeacherRanks),
            ("weighting", Weighting),
            ("difficulty_from", Difficulty),
        ):
            check_choice(name, getattr(self, name), get_args(options))
        check_temperature(self.temperature)
        weights = ("hard_weight", "pearson_weight", "spearman_weight", "intra_weight")
        check_not_negative(**{name: getattr(self, name) for name in weights})
        if not any(getattr(self, name) > 0 for name in weights[1:]):
            raise RequestError("pearson_weight, spearman_weight and intra_weight 0; needed one above 0")
        for name in ("rank_strength", "sigmoid_scale", "difficulty_temperature"):
            given = getattr(self, name)
            if given is not None and not 0 < given < math.inf:
                raise RequestError(f"{name} {given}; needed a number above 0")
        self._check_read()
        _check_classes(getattr(self.task, "num_classes", None))

    def _check_read(self) -> None:
        """Refuses a setting that another one keeps from being read."""
        softmax = self.pearson_on == "probabilities" or self.intra_weight > 0
        fixed = self.weighting == "fixed"
        check_read(
            self,
            ("tau_squared", False, not softmax, 'pearson_on = "probabilities"'),
            ("temperature", 2.0, not softmax, 'pearson_on = "probabilities"'),
            ("rank_strength", None, self.ranks == "sigmoid", 'ranks = "projection"'),
            ("sigmoid_scale", None, self.ranks == "projection", 'ranks = "sigmoid"'),
            ("difficulty_from", "teacher", fixed, 'weighting = "complementary" or "inverse"'),
            ("difficulty_temperature", 1.0, fixed, 'weighting = "complementary" or "inverse"'),
        )


def _check_classes(number: int | None) -> None:
    if number is not None and number < _SMALLEST:
        raise RequestError(
            f"cmkd of {number} classes; it needs at least {_SMALLEST}: the correlation of two values is 1 or "
            "-1, which teaches nothing",
            fix='method.name = "kd"',
        )
