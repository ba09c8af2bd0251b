"""How close generated images are to real ones: Fréchet distance, kernel distance, classifier score.

The formulas are torch-fidelity's (Heusel et al. 2017 for the Fréchet distance, Bińkowski et al. 2018 for
the kernel distance, Salimans et al. 2016 for the score). The features are extracted here, in chunks of a
fixed size in a fixed order, so that the number depends on neither the batch size nor the number of
processes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from infogan.evaluation.extractors import Extractor, Features
from infogan.evaluation.metrics import Metric, Outcome, Uncertainty, count_in_name, in_brackets
from infogan.evaluation.progress import progress
from infogan.evaluation.samples import CHUNK
from infogan.randomness import generator
from shards.errors import UserError

if TYPE_CHECKING:
    from infogan.evaluation.context import Context

KERNEL_SUBSETS = 100
KERNEL_SUBSET_SIZE = 1000
SMALLEST_KERNEL_SUBSET = 50
SCORE_SPLITS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's own, so that its numbers and ours agree

Images = Callable[[int, int], Tensor]  # (start, stop) => uint8 [stop - start, C, H, W]


def measure(context: Context) -> Outcome:
    """`frechet<N>_<split>`, `kernel<N>_<split>`, `score<N>`; with the original Inception `fid`, `kid`, `is`.

    Beside each stands its floor: the same measure between two disjoint halves of the real images.
    """
    real, drawn = context.real_features, context.drawn_features
    split, name = context.options.split, context.extractor.name
    frechet, kernel, score = ("frechet", "kernel", "score") if name else ("fid", "kid", "is")
    count = count_in_name(context.sample_count)
    protocol = context.sampling_protocol(**context.extractor.protocol, features=real.features.shape[1])
    floor, half = frechet_floor(real.features, context.options.seed)
    floored: dict[str, Any] = context.protocol(
        **context.extractor.protocol, compared=f"two disjoint halves of the {split} split, {half} images each"
    )
    floor_name = f"{frechet}{count_in_name(half)}_{split}_floor"
    outcome = Outcome(
        [
            Metric(in_brackets(f"{frechet}{count}_{split}", name), frechet_distance(real.features,
            drawn.features), None,
                   protocol | {"floor": floor, "floor_images": half}),
            Metric(in_brackets(floor_name, name), floor, None, floored),
        ]
    )  # fmt: skip
    subset = kernel_subset_size(min(len(real.features), len(drawn.features)))
    if subset is None:
        outcome.notes.append(
            f"kernel distance: {min(len(real.features), len(drawn.features))} images allow no subsets of"
            f" {SMALLEST_KERNEL_SUBSET}"
        )
    else:
        value, std = kernel_distance(real.features, drawn.features, subset)
        outcome.metrics.append(
            Metric(
                in_brackets(f"{kernel}{count}_{split}", name),
                value,
                Uncertainty("subsets", std, KERNEL_SUBSETS),
                protocol | {"subset_size": subset, "kernel": "cubic polynomial"},
            )
        )
    outcome.metrics += _scores(context, score, count, protocol)
    return outcome


def _scores(context: Context, score: str, count: str, protocol: dict[str, Any]) -> list[Metric]:
    """The classifier score of generated images, and beside it that of real ones."""
    name, split = context.extractor.name, context.options.split
    metrics = []
    for key, features, where in (
        (f"{score}{count}", context.drawn_features, protocol),
        (f"{score}_{split}_real", context.real_features, context.protocol(**context.extractor.protocol)),
    ):
        if features.logits is not None and len(features.logits) >= SCORE_SPLITS:
            value, std = class_score(features.logits)
            metrics.append(Metric(in_brackets(key, name), value, Uncertainty("splits", std, SCORE_SPLITS), where))
    return metrics


@torch.inference_mode()
def extract(extractor: Extractor, images: Images, n: int, what: str = "images") -> Features:
    """Features (and logits, where the extractor has them) of `images(0, n)`, float32 on the CPU, in order."""
    chunks = [
        extractor(images(start, min(start + CHUNK, n))) for start in progress(range(0, n, CHUNK), f"reading {what}")
    ]
    logits = [chunk.logits for chunk in chunks if chunk.logits is not None]
    return Features(torch.cat([chunk.features for chunk in chunks]), torch.cat(logits) if logits else None)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to features [n, d] and [m, d]; moments in float64."""
    for features in (a, b):
        if len(features) < 2:
            raise UserError(f"Fréchet distance: {len(features)} images: at least 2 are needed on each side")
    statistics = [fid_features_to_statistics(features.double().cpu()) for features in (a, b)]
    distance = fid_statistics_to_metric(*statistics, verbose=False)
    return float(distance["frechet_inception_distance"])


def frechet_floor(real: Tensor, seed: int = 0) -> tuple[float, int]:
    """Real against real: the distance of two disjoint halves of `real` [n, d], and the size of a half."""
    half = len(real) // 2
    order = torch.randperm(len(real), generator=generator(seed, "evaluation/floor"))
    return frechet_distance(real[order[:half]], real[order[half : 2 * half]]), half


def kernel_subset_size(samples: int) -> int | None:
    """The subset size that `samples` images allow, at most 1,000; None where they are too few."""
    size = min(KERNEL_SUBSET_SIZE, samples // 2)
    return size if size >= SMALLEST_KERNEL_SUBSET else None


def kernel_distance(a: Tensor, b: Tensor, subset_size: int = KERNEL_SUBSET_SIZE) -> tuple[float, float]:
    """Unbiased squared MMD with the cubic kernel: mean and standard deviation over 100 random subsets.

    a, b: features [n, d], [m, d]. Raises UserError where either side has fewer images than one subset.
    """
    fewest = min(len(a), len(b))
    if fewest < subset_size:
        raise UserError(
            f"kernel distance: {fewest} images are fewer than its subset size of {subset_size}: give more"
            " samples (--samples) or a larger split"
        )
    result = kid_features_to_metric(
        a.double(),
        b.double(),
        kid_subsets=KERNEL_SUBSETS,
        kid_subset_size=subset_size,
        rng_seed=SHUFFLE_SEED,
        verbose=False,
    )
    return result["kernel_inception_distance_mean"], result["kernel_inception_distance_std"]


def class_score(logits: Tensor) -> tuple[float, float]:
    """exp E[KL(p(y|x) || p(y))] of the classifier's logits [n, classes]: mean and std over 10 splits.

    It lies between 1 and the number of classes. With the original Inception weights it is the Inception
    Score.
    """
    if len(logits) < SCORE_SPLITS:
        raise UserError(f"classifier score: {len(logits)} images: at least {SCORE_SPLITS} are needed, one per split")
    result = isc_features_to_metric(logits, splits=SCORE_SPLITS, shuffle=True, rng_seed=SHUFFLE_SEED)
    return result["inception_score_mean"], result["inception_score_std"]
