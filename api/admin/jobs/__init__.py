"""/v1/jobs and /management: jobs, processes, the removal of old jobs."""
