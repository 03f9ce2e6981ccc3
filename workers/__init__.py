"""The worker processes that hold models, and the supervisor that starts and watches them."""
