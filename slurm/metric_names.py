"""Which numbers a run can come to have, by its config: in its log, and in a report of it."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from infogan.codes import CategoricalCode, ContinuousCode
from infogan.config import RunConfig

LOGGED = (
    "kimg", "update", "epoch", "lambda_share", "loss/critic", "loss/generator", "score/real", "score/fake",
    "diversity/real", "diversity/fake", "skipped", "time/images_per_s", "time/data_wait",
)  # fmt: skip
"""What a run's log may have whatever its config is (`infogan.tracking`)."""

_ANY = "..."
"""What a name holds that is known only once there is data, or an extractor."""


def logged(config: RunConfig) -> list[str]:
    """The numbers that training writes to a run's log, those of its validation (`infogan.evaluation.validation`) too;
    `...` stands for anything."""
    found = list(LOGGED)
    found += ["penalty/r1"] if getattr(config.objective, "r1", 0) else []
    for name, code in config.codes.items():
        found += [f"mi/{name}", f"mi/{name}/ceiling"]
        found += [f"mi/{name}/best_std", f"mse/{name}"] if isinstance(code, ContinuousCode) else []
    if config.eval.every_kimg is not None:
        found += [f"validation/{stem}/{name}" for stem, name in _of_codes(config, ("accuracy", "nmi"))]
        found += [f"validation/frechet2k[{_ANY}]"]
    return found


def reported(config: RunConfig, split: str) -> list[str]:
    """The numbers that a report on a split of its data may hold (`infogan.evaluation`); `...` stands for anything."""
    by_labels = (f"accuracy_{split}", f"accuracy_{split}_fitted_on_{split}", f"nmi_{split}", f"ari_{split}")
    found = [f"{stem}/{name}" for stem, name in _of_codes(config, by_labels)]
    for name, code in config.codes.items():
        found += [f"variation/{name}", f"spearman_{split}/{name}/{_ANY}", f"ami_{split}/{name}/{_ANY}"]
        found += [f"agreement/{name}[{_ANY}]"] if isinstance(code, CategoricalCode) else []
    found += [f"spearman_best_{split}/{_ANY}", f"ami_best_{split}/{_ANY}"]
    for names, brackets in ((("frechet", "kernel", "score"), f"[{_ANY}]"), (("fid", "kid", "is"), "")):
        found += [f"{name}{_ANY}{brackets}" for name in names]
    return found


def is_among(metric: str, names: list[str]) -> bool:
    """Whether a metric's name is one of these, in which `...` stands for anything."""
    return any(re.fullmatch(re.escape(name).replace(re.escape(_ANY), ".+"), metric) for name in names)


def offered(metric: str, names: list[str]) -> str:
    """What to say beside a name that is none of these: the one that may have been meant, or all."""
    close = get_close_matches(metric, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(dict.fromkeys(names))}"


def _of_codes(config: RunConfig, by_labels: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Stems and codes: L_I of each, and what reads a categorical code against labels."""
    for name, code in config.codes.items():
        yield "mi", name
        if isinstance(code, ContinuousCode):
            yield "mi_best_std", name
        if isinstance(code, CategoricalCode):
            yield from ((stem, name) for stem in by_labels)
