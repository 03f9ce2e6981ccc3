"""Counts that are too long for the test suite: what the product promises, over many rounds.

``make prove`` runs all of them and writes docs/proofs.json and docs/proofs.md; ``make prove
ONLY="upgrade many-jobs"`` some, whose results join the others there. ``make test`` runs the same
functions with few rounds.

To add one, write a function in a file ``tests/proofs/test_<subject>.py``::

    @proof("foreign-queues", goal="0 keys of others changed", full=60, fast=3)
    def test_an_application_beside_ours_loses_nothing(rounds: int) -> Result:
        tally = Tally()
        for _ in range(rounds):
            tally.check(is_right, "what was wrong")      # lost, doubled, wrong, hung: never allowed
            tally.note("until it was right", seconds, 2.0)  # a figure, its limit and unit
            tally.rounds += 1
        return tally.result()

``full`` are the rounds of ``make prove``, ``fast`` those of ``make test`` (0: never there, where
figures that depend on the clock are not judged). ``Tally`` and ``Result`` are those of the faults.
"""
