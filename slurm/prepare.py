"""What has to be made once, on a machine with internet and time, before runs go `offline` to compute nodes.

Nothing is compiled here, since nothing that a run needs has to be: DeepSpeed's CPU Adam, the one extension that would
be built at a run's start, is not used (`infogan.zero` says why), and torch's compilers keep what they make on the node.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from infogan.config import RunConfig
from infogan.devices import resolve_device
from infogan.evaluation.autoencoder import trained_autoencoder
from infogan.evaluation.classifier import trained_classifier
from infogan.evaluation.extractors import GENUINE_INCEPTION, URL_INCEPTION_V3, find_inception_weights, sha256_of
from infogan.model import check_identity
from shards import CacheOptions, Dataset, build, open_dataset, prefetch
from shards.errors import UserError
from shards.location import is_url
from shards.verify import verify
from slurm import recipes
from slurm.checks import check_made
from slurm.spec import Spec

Say = Callable[[str], None]


def prepare(
    spec: Spec, configs: Sequence[RunConfig], say: Say, *, offline: bool = True, inception: bool = False
) -> None:
    """Make the data sets of all runs and what their evaluation needs; what is there already is only checked.

    `offline`: the runs will have no network, so a data set at a URL is fetched into the cache of its config whole.

    Raises UserError where something is missing that cannot be made, or where a run does not fit its data.
    """
    check_made(spec, configs)
    places = dict.fromkeys((config.data.path, config.data.cache) for config in configs)
    datasets = {(path, cache): _data(spec, path, cache, say, offline=offline) for path, cache in places}
    for config in configs:
        check_identity(config, datasets[config.data.path, config.data.cache])
    check_made(spec, configs)  # of their splits, too, now that they are there
    say(f"{len(configs)} runs fit their data")
    if spec.evaluate.when != "never":
        for dataset in datasets.values():
            _extractor(dataset, say)
        if spec.evaluate.weights is not None:
            say(f"weights {spec.evaluate.weights}: sha256 {sha256_of(Path(spec.evaluate.weights))[:12]}")
    if inception:
        _inception(say)


def _data(spec: Spec, path: str, cache: CacheOptions, say: Say, *, offline: bool) -> Dataset:
    """The data set at `path`: built where the sweep file says how and it is not there; verified byte by byte."""
    if is_url(path):  # a shard is verified when it comes to lie in the cache
        dataset = open_dataset(path, cache)
        held = f", all of it in {prefetch(dataset)}" if offline else ""
        say(f"data {dataset.shown}: digest {dataset.manifest.digest[:12]}{held}")
        return dataset
    if not (Path(path) / "manifest.json").is_file():
        if path not in (told := recipes.by_path(spec)):
            raise UserError(
                f"data {path}: not there; build it (infogan shards build --help), or say how in {spec.path}, as in "
                f"data: {{{path}: {{source: digits}}}}"
            )
        source, options = recipes.recipe(*told[path])
        build(source(options), path)
    for fault in verify(path):
        raise UserError(str(fault))
    dataset = open_dataset(path)
    say(f"data {path}: verified, digest {dataset.manifest.digest[:12]}")
    return dataset


def _extractor(dataset: Dataset, say: Say) -> None:
    """The network trained on the data set whose features measure images: made once, found by every evaluation."""
    train = trained_classifier if dataset.manifest.classes else trained_autoencoder
    extractor = train(dataset, resolve_device("auto"))
    if extractor is not None:
        say(f"extractor {extractor.name}: beside the data")


def _inception(say: Say) -> None:
    """The original Inception weights, where torch-fidelity looks for them; only their bytes are fetched and hashed."""
    found = find_inception_weights()
    if found is None:
        found = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[-1]
        found.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(URL_INCEPTION_V3, str(found), hash_prefix=GENUINE_INCEPTION)
        except (OSError, RuntimeError) as error:
            raise UserError(
                f"the Inception weights cannot be fetched ({error}): fetch {URL_INCEPTION_V3} by hand to {found}"
            ) from None
    say(f"weights {found}: sha256 {sha256_of(found)[:12]}")
