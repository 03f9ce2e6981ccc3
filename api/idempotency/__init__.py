"""``Idempotency-Key``: a request that is sent again makes nothing a second time."""
