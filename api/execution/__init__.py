"""Jobs of requests: choice of the model, submission, following, early ends."""
