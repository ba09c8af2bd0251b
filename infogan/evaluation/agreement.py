"""Do generated images show what their categorical code claims? A classifier reads them.

A category claims the class that it was matched to on the train split. An unmatched category (more ways than
classes) claims nothing, and its images are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infogan.evaluation.fidelity import extract
from infogan.evaluation.metrics import Metric, Outcome, Uncertainty, in_brackets

if TYPE_CHECKING:
    from infogan.evaluation.clustering import Matching
    from infogan.evaluation.context import Context


def measure(context: Context) -> Outcome:
    """`agreement/<code>[classifier]`, and a table per class."""
    if not context.classes:
        return Outcome(notes=["agreement of codes and images: the data set has no labels, so there is no classifier"])
    if not context.model.codes.categorical:
        return Outcome(notes=["agreement of codes and images: the model has no categorical code to claim a class"])
    classifier = context.own_extractor
    logits = (
        context.drawn_features.logits
        if context.extractor is classifier
        else extract(classifier, lambda a, b: context.drawn.images[a:b], context.sample_count, "samples").logits
    )
    assert logits is not None
    read = logits.argmax(dim=1)
    outcome = Outcome()
    for name in context.model.codes.categorical:
        shown, per_class = agreement(read, context.drawn.values[name], context.matchings[name], len(context.classes))
        n = sum(images for _, images in per_class)
        std = (shown * (1 - shown) / max(n, 1)) ** 0.5
        protocol = context.sampling_protocol(
            matching="Hungarian, fitted on the train split", images_counted=n, **classifier.protocol
        )
        key = in_brackets(f"agreement/{name}", classifier.name)
        outcome.metrics.append(Metric(key, shown, Uncertainty("binomial", std, n), protocol))
        outcome.tables.append(
            {
                "kind": "agreement_by_class",
                "code": name,
                "classes": list(context.classes),
                "agreement": [share for share, _ in per_class],
                "images": [images for _, images in per_class],
            }
        )
    return outcome


def agreement(
    read: Tensor, categories: Tensor, matching: Matching, classes: int
) -> tuple[float, list[tuple[float | None, int]]]:
    """The share of images read (int64 [n]) as the class that their category (int64 [n]) is matched to.

    Also per class that was claimed: (share, images), share None where no image claims it.
    """
    claims = torch.full_like(read, -1)
    for category, label in matching.items():
        claims[categories == category] = label
    counted = claims >= 0
    hits = (read == claims) & counted
    per_class: list[tuple[float | None, int]] = []
    for label in range(classes):
        n = int((claims == label).sum())
        per_class.append((float(hits[claims == label].float().mean()) if n else None, n))
    return float(hits.sum() / counted.sum().clamp(min=1)), per_class
