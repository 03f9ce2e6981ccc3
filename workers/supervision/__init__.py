"""The supervisor: starts, watches, restarts and stops workers, and recovers their jobs."""
