"""What the metric families share: the model judged, the data, one set of generated images, one extractor.

Each of these is made when the first family asks for it, and once.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from infogan.codes import CategoricalPosterior, Posterior
from infogan.evaluation import clustering
from infogan.evaluation.autoencoder import trained_autoencoder
from infogan.evaluation.classifier import trained_classifier
from infogan.evaluation.extractors import Extractor, Features, InceptionExtractor, find_inception_weights
from infogan.evaluation.fidelity import extract
from infogan.evaluation.progress import progress
from infogan.evaluation.samples import CHUNK, Drawn, draw, some
from infogan.evaluation.trained import Trained
from infogan.model import Model
from shards import Dataset, Reader, open_reader
from shards.errors import UserError

MOST_EVALUATED = 50_000  # of the split's images
USUAL_SAMPLES = 10_000
MATCHING_IMAGES = 10_000  # of the train split, on which categories are matched to classes


@dataclass(frozen=True)
class Options:
    """How to evaluate. samples: generated images, by default as many as the split has, at least 10,000.

    weights: the Inception weights file; without it torch-fidelity's own download is used if it is there,
    else the data set's own extractor. only: names of the metric families wanted; empty means all that
    apply.
    """

    split: str = "test"
    samples: int | None = None
    weights: Path | None = None
    seed: int = 0
    only: tuple[str, ...] = ()


@dataclass
class Context:
    """One evaluation of one model on one data set. `readers`: those of its splits that are open already."""

    model: Model
    dataset: Dataset
    options: Options
    readers: dict[str, Reader] = field(default_factory=dict)

    def __post_init__(self) -> None:
        splits = self.dataset.manifest.splits
        if self.options.split not in splits:
            raise UserError(
                f"--split {self.options.split}: data set {self.dataset.manifest.name} has no such split;"
                f" it has {', '.join(splits)}"
            )
        if self.options.samples is not None and self.options.samples < 2:
            raise UserError(f"--samples {self.options.samples}: at least 2 generated images are needed")
        if self.real_count < 2:
            raise UserError(f"--split {self.options.split}: {self.real_count} images; at least 2 are needed")

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, label 0 first; empty for a set without labels."""
        return tuple(self.dataset.manifest.classes)

    @property
    def real_count(self) -> int:
        """Real images taken from the split."""
        return min(self.reader(self.options.split).samples, MOST_EVALUATED)

    @property
    def sample_count(self) -> int:
        """Generated images."""
        return self.options.samples or max(USUAL_SAMPLES, self.real_count)

    def reader(self, split: str) -> Reader:
        """A reader of one of the data set's splits."""
        if split not in self.readers:
            self.readers[split] = open_reader(self.dataset, split, kind=self.model.config.data.reader)
        return self.readers[split]

    def close(self) -> None:
        """Close the readers."""
        for reader in self.readers.values():
            reader.close()

    @cached_property
    def drawn(self) -> Drawn:
        """The generated images that all families look at."""
        return draw(self.model, self.sample_count, self.options.seed, "evaluation")

    @cached_property
    def extractor(self) -> Extractor:
        """Inception where its weights are; else what the data set's own labels, or images, can teach."""
        weights = self.options.weights or find_inception_weights()
        if weights is not None:
            return InceptionExtractor(weights, self.model.device)
        return self.own_extractor

    @cached_property
    def own_extractor(self) -> Trained:
        """The extractor trained on this data set: a classifier where it has labels, else an autoencoder."""
        train = trained_classifier if self.classes else trained_autoencoder
        trained = train(self.dataset, self.model.device)
        assert trained is not None
        return trained

    @cached_property
    def real_features(self) -> Features:
        """Of the real split's images, in order."""
        reader = self.reader(self.options.split)
        return extract(
            self.extractor,
            lambda start, stop: images_of(reader, np.arange(start, stop)),
            self.real_count,
            "real images",
        )

    @cached_property
    def drawn_features(self) -> Features:
        """Of the generated images, in order."""
        return extract(self.extractor, lambda start, stop: self.drawn.images[start:stop], self.sample_count, "samples")

    @property
    def matching_images(self) -> int:
        """Images of the train split on which categories are matched to classes."""
        return min(self.reader("train").samples, MATCHING_IMAGES)

    @cached_property
    def matchings(self) -> dict[str, clustering.Matching]:
        """Per categorical code: its categories' classes, matched on the train split. Empty without labels."""
        if not self.classes or not self.model.codes.categorical:
            return {}
        train = self.reader("train")
        indices = some(train.samples, MATCHING_IMAGES, self.options.seed, "evaluation/matching")
        counts = self.contingencies(train, indices, "train images")
        return {name: clustering.match(matrix) for name, matrix in counts.items()}

    def contingencies(self, reader: Reader, indices: np.ndarray, what: str) -> dict[str, clustering.Counts]:
        """Per categorical code, how many images carry each label, by the category that Q reads."""
        codes = self.model.codes
        found = {
            name: np.zeros((codes.codes[name].input_width, len(self.classes)), np.int64) for name in codes.categorical
        }
        for start in progress(range(0, len(indices), CHUNK), f"reading codes of {what}"):
            batch = reader.gather(indices[start : start + CHUNK])
            for name, categories in categories_of(self.model.encode(batch.images.cpu())).items():
                ways, classes = found[name].shape
                found[name] += clustering.contingency(categories, batch.labels.cpu(), ways, classes)
        return found

    def protocol(self, **more: Any) -> dict[str, Any]:
        """What every number of this evaluation has in common, and `more`."""
        origin = self.model.origin
        return {
            "checkpoint_digest": origin.checkpoint_digest,
            "data_digest": self.dataset.manifest.digest,
            "split": self.options.split,
            "real_images": self.real_count,
            **more,
        }

    def sampling_protocol(self, **more: Any) -> dict[str, Any]:
        """The protocol of a number that generated images go into."""
        return self.protocol(
            generated_images=self.sample_count,
            latent_seed=self.options.seed,
            generator="EMA weights",
            batchnorm="evaluation mode; statistics estimated afresh for these weights on new latents",
            precision="float32",
            rounding="uint8, to the nearest of 256 levels",
            **more,
        )


def images_of(reader: Reader, indices: np.ndarray) -> Tensor:
    """uint8 [n, C, H, W] on the CPU."""
    images: Tensor = reader.gather(indices).images.cpu()
    return images


def categories_of(posteriors: dict[str, Posterior]) -> dict[str, Tensor]:
    """The likeliest category of every categorical code: int64 [n] each."""
    return {name: p.mode for name, p in posteriors.items() if isinstance(p, CategoricalPosterior)}
