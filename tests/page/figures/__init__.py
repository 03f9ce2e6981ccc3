"""What the page and its feed cost: ``python -m tests.page.figures``."""
