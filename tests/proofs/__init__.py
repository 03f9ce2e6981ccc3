"""Proofs: guarantees of the product over many rounds, which take too long for the test suite.

``make prove`` runs all of them and writes docs/proofs.json and docs/proofs.md; ``make prove
ONLY="upgrade many-jobs"`` runs some, and updates their lines there. ``make test`` runs the same
functions with few rounds.

To add one, write a function in a file ``tests/proofs/test_<subject>.py``::

    @proof("foreign-queues", goal="0 keys of others changed", full=60, fast=3)
    def test_an_application_on_the_same_redis_loses_nothing(rounds: int) -> Result:
        tally = Tally()
        for _ in range(rounds):
            tally.check(is_right, "what was wrong")      # lost, doubled, wrong, hung: not allowed
            tally.note("until it was right", seconds, 2.0)  # a figure, its limit and unit
            tally.rounds += 1
        return tally.result()

``full``: rounds of ``make prove``. ``fast``: rounds of ``make test`` (0: not there), which does not
compare times with their goals. ``Tally`` and ``Result`` are those of the faults.
"""
