"""The lines of a batch: their requests, jobs and answers."""
