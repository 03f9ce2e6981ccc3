"""How fast jobs have started of late."""

from __future__ import annotations

from workers.scheduling.start_rates import StartRates


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def rates_after(num: int, pause_s: float) -> tuple[StartRates, Clock]:
    clock = Clock()
    rates = StartRates(clock)
    for _ in range(num):
        clock.now += pause_s
        rates.note("interactive")
    return rates, clock


def test_a_few_starts_say_nothing() -> None:
    assert rates_after(4, 1.0)[0].per_s() == {}


def test_regular_starts_give_their_rate_by_class() -> None:
    assert rates_after(5, 2.0)[0].per_s() == {"interactive": 0.5}
    assert rates_after(100, 0.25)[0].per_s() == {"interactive": 4.0}


def test_the_rate_falls_while_nothing_starts_and_is_forgotten() -> None:
    rates, clock = rates_after(5, 2.0)
    clock.now += 8
    assert rates.per_s() == {"interactive": 0.25}
    clock.now += 600
    assert rates.per_s() == {}
