"""The report: every table and figure of the paper, from real data."""
