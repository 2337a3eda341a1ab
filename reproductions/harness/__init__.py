"""The shared parts of all experiments: rows, launches, records and reports."""
