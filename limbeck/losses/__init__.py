"""Loss functions: pure, tensors in and tensors out. Shapes, equations and sources are in each docstring."""

from __future__ import annotations

from limbeck.losses.checks import (
    check_finite,
    check_labels,
    check_not_negative,
    check_same_shape,
    check_temperature,
    warn_of_constant_rows,
    warn_of_probabilities,
)
from limbeck.losses.correlation import class_correlation_error, pearson, varies
from limbeck.losses.directions import (
    class_contrast,
    direction_error,
    same_nearest,
    similarities,
    similarity_divergence,
    unit,
)
from limbeck.losses.features import feature_error
from limbeck.losses.gaussians import gaussian_divergence, gaussian_sample, mutual_divergence
from limbeck.losses.hashing import hash_bias, hash_error, hash_values
from limbeck.losses.ranks import hard_rank, sigmoid_rank, soft_rank
from limbeck.losses.reductions import reduce_samples, reduce_tokens, reduce_weighted, widen
from limbeck.losses.soft import (
    bernoulli_divergence,
    check_mixture,
    decoupled_terms,
    js_divergence,
    kl_divergence,
    log_probabilities,
    mix_logits,
    softened_divergence,
    standardize,
)
from limbeck.losses.sparse import TopK, check_rest, sparse_decoupled_terms, sparse_divergence, top_k
from limbeck.losses.spectra import central, low_pass, spectral_representation, spectrum, unit_power
from limbeck.losses.values import bounded_error, smooth_absolute_error, squared_error

__all__ = [
    "TopK",
    "bernoulli_divergence",
    "bounded_error",
    "central",
    "check_finite",
    "check_labels",
    "check_mixture",
    "check_not_negative",
    "check_rest",
    "check_same_shape",
    "check_temperature",
    "class_contrast",
    "class_correlation_error",
    "decoupled_terms",
    "direction_error",
    "feature_error",
    "gaussian_divergence",
    "gaussian_sample",
    "hard_rank",
    "hash_bias",
    "hash_error",
    "hash_values",
    "js_divergence",
    "kl_divergence",
    "log_probabilities",
    "low_pass",
    "mix_logits",
    "mutual_divergence",
    "pearson",
    "reduce_samples",
    "reduce_tokens",
    "reduce_weighted",
    "same_nearest",
    "sigmoid_rank",
    "similarities",
    "similarity_divergence",
    "smooth_absolute_error",
    "soft_rank",
    "softened_divergence",
    "sparse_decoupled_terms",
    "sparse_divergence",
    "spectral_representation",
    "spectrum",
    "squared_error",
    "standardize",
    "top_k",
    "unit",
    "unit_power",
    "varies",
    "warn_of_constant_rows",
    "warn_of_probabilities",
    "widen",
]
