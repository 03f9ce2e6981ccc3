"""Which jobs run beside each other: interactive ones first, callers by their share."""
