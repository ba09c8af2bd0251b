"""How the report names and prints numbers: names for machines become words and units for people."""

import re
from dataclasses import dataclass

from infogan.evaluation.metrics import Metric

STEMS = (
    "spearman_best",
    "spearman",
    "ami_best",
    "ami",
    "accuracy",
    "nmi",
    "ari",
    "mi_best_std",
    "mi",
    "agreement",
    "variation",
    "frechet",
    "kernel",
    "score",
    "fid",
    "kid",
    "is",
)


@dataclass(frozen=True)
class Words:
    """A metric in words: the group that it belongs to, what it is, and its value and spread as printed."""

    group: str
    title: str
    value: str
    spread: str


GROUPS = {
    "information": "Information in the codes",
    "labels": "Codes against labels",
    "factors": "Codes against true factors",
    "agreement": "What the images show",
    "quality": "Image quality",
    "variation": "What each code changes",
}


def words(metric: Metric) -> Words:
    """The metric as a reader meets it."""
    stem, where, code = take_apart(metric.name)
    group, title = _title(stem, where, code)
    std = metric.uncertainty.std if metric.uncertainty else None
    return Words(group, title, printed(stem, metric.value), "" if std is None else "± " + printed(stem, std))


def in_a_table(metric: Metric) -> bool:
    """Whether the number is one of many that a table shows better than a list: codes and encoders against factors."""
    stem = take_apart(metric.name)[0]
    return stem in ("spearman", "ami") or (stem in ("spearman_best", "ami_best") and "[" in metric.name)


def take_apart(name: str) -> tuple[str, str, str]:
    """`accuracy_test_fitted_on_test/digit` => ("accuracy", "test_fitted_on_test", "digit")."""
    name = name.removeprefix("validation/").partition("[")[0]
    left, _, code = name.partition("/")
    stem = next((stem for stem in STEMS if re.match(rf"{stem}(\d|_|$)", left)), left)
    where = re.sub(r"^\d+k?", "", left[len(stem) :]).strip("_")
    return stem, where, code


def _title(stem: str, where: str, code: str) -> tuple[str, str]:
    split, _, manner = where.partition("_")
    on = f" on {split}" if split else ""
    fitted = f", matched on {split} itself" if manner.startswith("fitted") else ", matched on train" if split else ""
    quality = {
        "frechet": "Fréchet distance",
        "fid": "Fréchet Inception distance",
        "kernel": "Kernel distance",
        "kid": "Kernel Inception distance",
        "score": "Classifier score",
        "is": "Inception score",
    }
    if stem in quality:
        kind = quality[stem]
        if manner == "floor":
            return "quality", f"{kind}: floor, real against real"
        if manner == "real":
            return "quality", f"{kind} of the real images"
        return "quality", f"{kind}{f' to the {split} images' if split else ' of generated images'}"
    return {
        "accuracy": ("labels", f"Accuracy of “{code}”{on}{fitted}"),
        "nmi": ("labels", f"Normalised mutual information of “{code}”{on}"),
        "ari": ("labels", f"Adjusted Rand index of “{code}”{on}"),
        "mi": ("information", f"L_I of “{code}”"),
        "mi_best_std": ("information", f"L_I of “{code}” at the best std"),
        "spearman": ("factors", f"Rank correlation of {code.replace('/', ' with ')}{on}"),
        "spearman_best": ("factors", f"Largest rank correlation |ρ| of a code with {code}{on}"),
        "ami": ("factors", f"Adjusted mutual information of {code.replace('/', ' with ')}{on}"),
        "ami_best": ("factors", f"Most that a code knows of {code}{on}, adjusted mutual information"),
        "agreement": ("agreement", f"Images read as what “{code}” claims"),
        "variation": ("variation", f"Change of the image along “{code}”"),
    }.get(stem, ("quality", stem))


def printed(stem: str, value: float) -> str:
    """A value with as many digits as mean something, and its unit."""
    if stem in ("accuracy", "agreement"):
        return f"{100 * value:.1f} %"
    if stem in ("mi", "mi_best_std"):
        return f"{value:.3f} nats".replace("-", "−")
    if stem == "variation":
        return f"{value:.1f} levels"
    if stem in ("kernel", "kid"):
        return f"{value:.3g}".replace("-", "−")
    if stem in ("frechet", "fid", "score", "is"):
        return f"{value:.2f}" if value >= 1 else f"{value:.3f}"
    return f"{value:.3f}".replace("-", "−")
