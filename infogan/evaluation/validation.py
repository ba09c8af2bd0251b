"""The light scores that training takes on the validation split, to choose the best checkpoint and to warn."""

import numpy as np

from infogan.evaluation import clustering, information
from infogan.evaluation.autoencoder import trained_autoencoder
from infogan.evaluation.classifier import trained_classifier
from infogan.evaluation.context import Context, Options
from infogan.evaluation.fidelity import extract, frechet_distance
from infogan.evaluation.metrics import count_in_name, in_brackets
from infogan.evaluation.samples import Drawn, draw, some
from infogan.model import Model
from shards import Dataset, Reader

SCORED = 2_000  # images generated, and real ones read at most
SPLIT = "validation"


def validation_score(model: Model, dataset: Dataset, readers: dict[str, Reader]) -> dict[str, float]:
    """Numbers of `model` on the validation split, each the same for the same weights; takes seconds.

    `validation/accuracy/<code>` and `validation/nmi/<code>` where the set has labels (matching fitted on as
    many train images), `validation/mi/<code>` in nats, and `validation/frechet2k[extractor]` where the data
    set's own extractor has been trained before: it is not trained for this. `readers`: of the train and the
    validation split; without the latter only what needs no real images is measured.
    """
    drawn = draw(model, SCORED, 0, "validation")
    bounds = information.bounds(model, drawn.images, drawn.values)
    found = {f"validation/{name}": nats for name, nats in bounds.items()}
    if SPLIT not in readers:
        return found
    context = Context(model, dataset, Options(split=SPLIT), readers)
    real = _chosen(context.reader(SPLIT))
    if context.classes and model.codes.categorical:
        train = context.reader("train")
        fitted_on = context.contingencies(train, _chosen(train), "train images")
        scored_on = context.contingencies(context.reader(SPLIT), real, "validation images")
        for name, counts in scored_on.items():
            matching = clustering.match(fitted_on[name])
            found[f"validation/accuracy/{name}"] = clustering.accuracy(counts, matching)
            found[f"validation/nmi/{name}"] = clustering.nmi(counts)
    return found | _frechet(context, real, drawn)


def _frechet(context: Context, real: np.ndarray, drawn: Drawn) -> dict[str, float]:
    cached = trained_classifier if context.classes else trained_autoencoder
    extractor = cached(context.dataset, context.model.device, only_cached=True)
    if extractor is None or len(real) < 2:
        return {}
    images = context.reader(SPLIT).gather(real).images
    features = extract(extractor, lambda start, stop: images[start:stop], len(real), "validation images").features
    generated = extract(extractor, lambda start, stop: drawn.images[start:stop], SCORED, "samples").features
    name = in_brackets(f"validation/frechet{count_in_name(SCORED)}", extractor.name)
    return {name: frechet_distance(features, generated)}


def _chosen(reader: Reader) -> np.ndarray:
    return some(reader.samples, SCORED, 0, "validation/images")
