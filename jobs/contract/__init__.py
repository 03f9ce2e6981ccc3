"""What crosses a process: requests, events, errors, records. Frozen structs."""
