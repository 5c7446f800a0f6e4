"""Who holds what: every example dealt once, in the way that the rule says."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import beta, chisquare, kstest

from fslora.data import DataError, Examples, label_histogram, partition
from fslora.data.partition import Rule

RULES: list[Rule] = ["natural", "iid", "dirichlet", "quantity", "pathological"]


def examples(group: np.ndarray, label: np.ndarray) -> Examples:
    n = len(group)
    two = np.full(n, 2)
    return Examples(np.zeros((n, 2), np.int64), two, two - 1, group, label, two - 1)


def of_classes(*size: int) -> Examples:
    """So many examples of class 0, then of class 1, ..."""
    label = np.repeat(np.arange(len(size)), size)
    return examples(label, label)


@settings(max_examples=100)
@given(
    rule=st.sampled_from(RULES),
    count=st.integers(20, 120),
    devices=st.integers(1, 20),
    seed=st.integers(0, 99),
    alpha=st.floats(0.01, 100.0),
    classes_per_device=st.integers(1, 3),
)
def test_every_example_goes_to_one_device(
    rule: Rule, count: int, devices: int, seed: int, alpha: float, classes_per_device: int
) -> None:
    rng = np.random.default_rng(seed)
    data = examples(rng.integers(0, 4, count), rng.integers(0, 3, count))
    assume(rule != "pathological" or devices * classes_per_device >= 3)
    shards = partition(data, rule, devices, seed, alpha, classes_per_device)
    assert len(shards) == devices
    assert min(map(len, shards)) >= 1
    assert sorted(np.concatenate(shards).tolist()) == list(range(count))
    again = partition(data, rule, devices, seed, alpha, classes_per_device)
    assert all(np.array_equal(x, y) for x, y in zip(shards, again, strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_another_seed_deals_otherwise(rule: Rule) -> None:
    data = of_classes(30, 30, 30)
    one, other = (partition(data, rule, 9, seed) for seed in (1, 2))
    assert any(x.tolist() != y.tolist() for x, y in zip(one, other, strict=True))


def test_natural_keeps_groups_apart() -> None:
    group = np.repeat(np.arange(3), 10)
    shards = partition(examples(group, group), "natural", 6, 0)
    assert [set(group[shard].tolist()) for shard in shards] == [{0}, {1}, {2}] * 2
    few = partition(examples(group, group), "natural", 2, 0)
    assert [set(group[shard].tolist()) for shard in few] == [{0, 2}, {1}]


def test_iid_sizes_differ_by_at_most_one() -> None:
    shards = partition(of_classes(50, 53), "iid", 10, 0)
    assert sorted(map(len, shards)) == [10] * 7 + [11] * 3


def test_dirichlet_skew_follows_alpha() -> None:
    data = of_classes(*[200] * 5)

    def largest_share(alpha: float) -> float:
        table = label_histogram(data, partition(data, "dirichlet", 10, 1, alpha), 5)
        return float((table.max(axis=0) / 200).mean())

    assert largest_share(1e4) < 0.12
    assert largest_share(0.05) > 0.5


@pytest.mark.parametrize("alpha", [0.3, 1.0, 8.0])
def test_quantity_gives_each_device_a_share_of_the_beta_distribution(alpha: float) -> None:
    """One part of a symmetric Dirichlet vector of N parts is Beta(alpha, (N - 1) alpha)."""
    devices, count, draws = 5, 20_000, 400
    data = of_classes(count)
    share = np.array(
        [len(partition(data, "quantity", devices, seed, alpha)[2]) / count for seed in range(draws)]
    )
    law = beta(alpha, (devices - 1) * alpha)
    assert kstest(share, law.cdf).pvalue > 1e-3
    assert abs(share.mean() - 1 / devices) < 4 * law.std() / np.sqrt(draws)
    # Var = (1/N) (1 - 1/N) / (N alpha + 1); its estimate scatters by sqrt((kurtosis + 2) / draws).
    variance = 0.16 / (5 * alpha + 1)
    scatter = np.sqrt((float(law.stats("k")) + 2) / draws)
    assert abs(share.var() / variance - 1) < 4 * scatter


def test_quantity_skews_sizes_and_not_content() -> None:
    data = of_classes(*[400] * 5)
    table = label_histogram(data, partition(data, "quantity", 6, 3, 0.5), 5)
    size = table.sum(1)
    assert size.max() > 3 * size.min()
    for row in table[size >= 50]:
        assert chisquare(row).pvalue > 1e-3


def test_quantity_leaves_no_device_without_data_and_feeds_without_favour() -> None:
    """At alpha = 0.01 nearly all devices draw nothing; what they get comes from all classes."""
    data = of_classes(*[40] * 5)
    table = label_histogram(data, partition(data, "quantity", 60, 0, 0.01), 5)
    poor = table[table.sum(1) == 1]
    assert len(poor) > 40
    assert (poor.sum(0) > 0).all()


@settings(max_examples=100)
@given(
    size=st.lists(st.integers(30, 200), min_size=2, max_size=10),
    devices=st.integers(1, 30),
    classes_per_device=st.integers(1, 10),
    seed=st.integers(0, 99),
)
def test_pathological_gives_each_device_exactly_so_many_classes(
    size: list[int], devices: int, classes_per_device: int, seed: int
) -> None:
    """Every class has at least one example per device, so nothing stands in the way."""
    classes = len(size)
    assume(classes_per_device <= classes <= devices * classes_per_device)
    data = of_classes(*size)
    shards = partition(data, "pathological", devices, seed, classes_per_device=classes_per_device)
    table = label_histogram(data, shards, classes)
    assert ((table > 0).sum(1) == classes_per_device).all()
    assert table.sum(0).tolist() == size
    for column in table.T:
        assert np.ptp(column[column > 0]) <= 1


def test_pathological_sizes_are_equal_where_classes_are() -> None:
    """The setting of arXiv 1602.05629: 100 devices, 10 classes, two shards each."""
    data = of_classes(*[600] * 10)
    table = label_histogram(data, partition(data, "pathological", 100, 0), 10)
    assert (table.sum(1) == 60).all()
    assert set(table[table > 0].tolist()) == {30}
    # Classes meet at random: of the 45 pairs of classes many occur.
    assert len({tuple(np.flatnonzero(row)) for row in table}) > 20


def test_pathological_gives_large_classes_more_shards() -> None:
    data = of_classes(100, 300, 600)
    table = label_histogram(data, partition(data, "pathological", 10, 0, classes_per_device=1), 3)
    assert (table > 0).sum(0).tolist() == [1, 3, 6]
    assert (table.sum(1) == 100).all()


def test_pathological_spreads_rare_classes_as_far_as_they_go() -> None:
    """Three examples make at most three shards, so five of the eight devices hold one class."""
    data = of_classes(3, 80)
    table = label_histogram(data, partition(data, "pathological", 8, 0), 2)
    assert sorted((table > 0).sum(1)) == [1] * 5 + [2] * 3
    assert table.sum(0).tolist() == [3, 80]


@pytest.mark.parametrize(
    ("devices", "classes_per_device", "message"),
    [
        (4, 6, r"data\.classes_per_device = 6: .* have 5 classes; take at most"),
        (2, 2, r"data\.classes_per_device = 2: 2 devices would leave out .* take at least 3"),
    ],
)
def test_classes_that_cannot_be_dealt_are_refused(
    devices: int, classes_per_device: int, message: str
) -> None:
    data = of_classes(*[10] * 5)
    with pytest.raises(DataError, match=message):
        partition(data, "pathological", devices, 0, classes_per_device=classes_per_device)
    partition(data, "pathological", devices, 0, classes_per_device=3)


@pytest.mark.parametrize("rule", ["dirichlet", "pathological"])
def test_classes_are_needed(rule: Rule) -> None:
    label = np.array([0, 1, -1, 0])
    with pytest.raises(DataError, match=f"partition '{rule}' needs the class of every example"):
        partition(examples(label, label), rule, 2, 0)


def test_too_few_examples_are_refused() -> None:
    with pytest.raises(DataError, match="3 training examples cannot feed 4 devices"):
        partition(of_classes(3), "iid", 4, 0)


def test_histogram_counts_each_class_of_each_device() -> None:
    label = np.array([0, 2, 2, -1, 1, 2])
    shards = (np.array([0, 1, 2, 3]), np.array([4]), np.array([5]))
    table = label_histogram(examples(label, label), shards, 4)
    assert table.tolist() == [[1, 0, 2, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
