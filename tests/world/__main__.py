"""``make world``: speed per idiom, real templates against transformers, real vocabularies."""

from __future__ import annotations

import sys

from tests.world import real_templates, real_vocabularies, speed
from tests.world.sources import find_models


def main() -> int:
    is_good = speed.print_table()
    models = find_models()
    if models is not None:
        is_good = real_templates.print_table(models) and is_good
        is_good = real_vocabularies.print_table(models) and is_good
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
