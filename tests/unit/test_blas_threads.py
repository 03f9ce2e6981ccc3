"""How many threads a product of NumPy gets."""

from __future__ import annotations

import pytest

from workers.engines.mlx.cpu.threads import BlasThreads


class Library:
    """What threadpoolctl knows of one BLAS."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def set_num_threads(self, num: int) -> None:
        self.asked.append(num)


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def threads(library: Library) -> BlasThreads:
    threads = BlasThreads()
    threads._libraries = [library]
    threads.limit(4)
    return threads


@pytest.mark.parametrize(
    ("rows", "weights", "expected"),
    [
        (70, 49_000, 1),  # a chat's next turn through a small model
        (1000, 49_000, 4),
        (4, 1_000_000, 4),  # few rows, and weights that come from memory
        (4, 200_000, 1),
    ],
)
def test_small_products_get_one(
    threads: BlasThreads, library: Library, rows: int, weights: int, expected: int
) -> None:
    threads.prepare(rows * weights, weights)
    assert library.asked == [expected]


def test_products_without_weights_count_by_their_size(
    threads: BlasThreads, library: Library
) -> None:
    for size in (1_000_000, 20_000_000, 30_000_000, 1000):
        threads.prepare(size)
    assert library.asked == [1, 4, 1]


def test_no_more_than_others_leave(threads: BlasThreads, library: Library) -> None:
    threads.limit(2)
    threads.prepare(1 << 30)
    assert library.asked == [2]
