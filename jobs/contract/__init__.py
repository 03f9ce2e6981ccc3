"""What processes exchange: requests, events, errors, records. All are frozen structs."""
