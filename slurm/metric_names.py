"""Which numbers a run can come to have, in its log and in a report of it, and which end of each is the good one.

Knows no torch. In a pattern `{code}`, `{categorical}` and `{continuous}` stand for a code's name, `{split}` for that of
a split, `<n>` for a number of images, and `...` for anything: a factor, an extractor, an encoder.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from infogan.config import RunConfig

Better = Literal["higher", "lower"] | None
"""The good end; None where that depends, or where a number only describes."""

PLACES = ("kimg", "update", "time/images_per_s", "time/data_wait")
"""What a row of a log says of itself; no run is better by it."""

LOGGED: dict[str, Better] = {
    "epoch": None,
    "lambda_share": None,
    "loss/critic": "lower",
    "loss/generator": "lower",
    "score/real": None,
    "score/fake": None,
    "diversity/real": None,
    "diversity/fake": None,
    "mi/{code}": "higher",
    "mi/{code}/ceiling": None,
    "mi/{continuous}/best_std": "higher",
    "mse/{continuous}": "lower",
}
"""What training writes to a run's log (`infogan.tracking`)."""

WHERE_SAID: dict[str, Better] = {"penalty/r1": None, "skipped": None}
"""The same, of runs with `objective.r1`, and of those in fp16."""

VALIDATED: dict[str, Better] = {
    "validation/mi/{code}": "higher",
    "validation/mi_best_std/{continuous}": "higher",
    "validation/accuracy/{categorical}": "higher",
    "validation/nmi/{categorical}": "higher",
    "validation/frechet<n>[...]": "lower",
}
"""What its scores on the validation split add (`infogan.evaluation.validation`)."""

REPORTED: dict[str, dict[str, Better]] = {
    "information": {"mi/{code}": "higher", "mi_best_std/{continuous}": "higher"},
    "accuracy": {
        "accuracy_{split}/{categorical}": "higher",
        "accuracy_{split}_fitted_on_{split}/{categorical}": "higher",
        "nmi_{split}/{categorical}": "higher",
        "ari_{split}/{categorical}": "higher",
    },
    "agreement": {"agreement/{categorical}[...]": "higher"},
    "factors": {
        "spearman_{split}/{continuous}/...": None,
        "spearman_best_{split}/...": "higher",
        "ami_{split}/{code}/...": "higher",
        "ami_best_{split}/...": "higher",
    },
    "fidelity": {
        "frechet<n>_{split}[...]": "lower",
        "frechet<n>_{split}_floor[...]": None,
        "kernel<n>_{split}[...]": "lower",
        "score<n>[...]": "higher",
        "score_{split}_real[...]": None,
        "fid<n>_{split}": "lower",
        "fid<n>_{split}_floor": None,
        "kid<n>_{split}": "lower",
        "is<n>": "higher",
        "is_{split}_real": None,
    },
    "variation": {"variation/{code}": None},
}
"""What each metric family writes to a report (`infogan.evaluation`)."""

_WILD = {"...": ".+", "<n>": r"\d+k?", "{split}": r"\w+"}


def of_log(config: "RunConfig") -> list[str]:
    """The numbers that a run's log may have, as patterns in which only `...` and `<n>` are left open."""
    return [*PLACES, *ranked_of_log(config)]


def ranked_of_log(config: "RunConfig") -> list[str]:
    """The same without what no run is better by."""
    said = {"penalty/r1": config.objective.r1 > 0, "skipped": config.precision == "fp16"}
    found = list(_filled(LOGGED, config)) + [name for name in WHERE_SAID if said[name]]
    return found + (list(_filled(VALIDATED, config)) if config.eval.every_kimg is not None else [])


def to_rank_by(config: "RunConfig", split: str, only: Collection[str] = ()) -> list[str]:
    """What runs may be ranked by: the numbers of their log, and of a report on a split, of all families or of some."""
    return ranked_of_log(config) + of_report(config, split, only)


def of_report(config: "RunConfig", split: str, only: Collection[str] = ()) -> list[str]:
    """The numbers that a report on a split of its data may hold, of all families or of `only` some."""
    families = [names for family, names in REPORTED.items() if not only or family in only]
    return [name for names in families for name in _filled(names, config, split)]


def is_place(name: str) -> bool:
    """Whether a name of the log is one that no run is better by."""
    return name in PLACES


def is_among(metric: str, names: Collection[str]) -> bool:
    """Whether a metric's name is one of these."""
    return any(_matches(metric, name) for name in names)


def better_end(metric: str) -> Better:
    """The good end of a number of any run's log or report, by its name."""
    tables: list[Mapping[str, Better]] = [VALIDATED, LOGGED, *REPORTED.values()]
    found = {better for names in tables for name, better in names.items() if _matches(metric, name)}
    return found.pop() if len(found) == 1 else None


def offered(metric: str, names: Collection[str]) -> str:
    """What to say beside a name that is none of these: the one that may have been meant, or all."""
    close = get_close_matches(metric, names, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(dict.fromkeys(names))}"


def _filled(names: Collection[str], config: "RunConfig", split: str = "") -> Iterator[str]:
    """Patterns with the codes of a config and a split in place."""
    for name in names:
        kind = re.search(r"{(code|categorical|continuous)}", name)
        codes = [code for code, told in config.codes.items() if kind and kind[1] in ("code", told.kind)]
        for code in codes if kind else ("",):
            yield (name.replace(kind[0], code) if kind else name).replace("{split}", split)


def _matches(metric: str, pattern: str) -> bool:
    parts = re.split(r"(\.\.\.|<n>|{\w+})", pattern)
    return re.fullmatch("".join(_WILD.get(part, _open(part)) for part in parts), metric) is not None


def _open(part: str) -> str:
    return "[^/]+" if part.startswith("{") else re.escape(part)
