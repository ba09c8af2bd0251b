"""Matching categories to classes, and the scores of the match."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from infogan.evaluation import clustering


def test_contingency_counts_pairs_and_leaves_unlabelled_images_out() -> None:
    counts = clustering.contingency([0, 0, 1, 2, 2], [1, 1, 0, 1, -1], ways=3, classes=2)
    assert counts.tolist() == [[0, 2], [1, 0], [0, 1]]


def test_matching_maximises_hits_where_the_greedy_choice_does_not() -> None:
    # Greedy takes (0, 0) with 10 hits and is left with (1, 1): 10. The best is (0, 1), (1, 0): 9 + 8.
    counts = np.array([[10, 9], [8, 0]])
    assert clustering.match(counts) == {0: 1, 1: 0}
    assert clustering.accuracy(counts, clustering.match(counts)) == pytest.approx(17 / 27)


def test_more_categories_than_classes_leave_the_rest_unmatched_and_wrong() -> None:
    counts = np.array([[5, 0], [4, 0], [0, 6]])
    matching = clustering.match(counts)
    assert matching == {0: 0, 2: 1}
    assert clustering.accuracy(counts, matching) == pytest.approx(11 / 15)


def test_fewer_categories_than_classes_leave_classes_unpredicted() -> None:
    counts = np.array([[5, 0, 3], [0, 6, 1]])
    assert clustering.match(counts) == {0: 0, 1: 1}
    assert clustering.accuracy(counts, clustering.match(counts)) == pytest.approx(11 / 15)


def test_a_permutation_of_the_labels_scores_perfectly() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 500)
    permutation = np.random.default_rng(1).permutation(10)
    counts = clustering.contingency(permutation[labels], labels, 10, 10)
    scored = clustering.score(counts, clustering.match(counts))
    assert scored.accuracy[0] == 1.0
    assert scored.nmi[0] == pytest.approx(1.0)
    assert scored.ari[0] == pytest.approx(1.0)
    assert scored.accuracy[1].std == 0.0


def test_nmi_and_ari_are_scikit_learns_on_the_single_images() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 5, 400)
    categories = np.where(rng.random(400) < 0.6, labels, rng.integers(0, 7, 400))
    counts = clustering.contingency(categories, labels, 7, 5)
    assert clustering.nmi(counts) == pytest.approx(normalized_mutual_info_score(labels, categories))
    assert clustering.ari(counts) == pytest.approx(adjusted_rand_score(labels, categories))


def test_a_matching_from_elsewhere_is_not_improved_on_the_scored_split() -> None:
    train = np.array([[9, 1], [1, 9]])
    test = np.array([[1, 9], [9, 1]])  # the codes swapped their meaning
    scored = clustering.score(test, clustering.match(train))
    assert scored.accuracy[0] == pytest.approx(0.1)
    assert scored.accuracy_fitted_here[0] == pytest.approx(0.9)


def test_bootstrap_has_the_binomial_spread() -> None:
    counts = np.array([[400, 100], [100, 400]])
    accuracy, uncertainty = clustering.score(counts, {0: 0, 1: 1}).accuracy
    assert uncertainty.kind == "bootstrap"
    assert uncertainty.std == pytest.approx((accuracy * (1 - accuracy) / 1000) ** 0.5, rel=0.2)
