"""The report: the tables and figures of the paper, from real data."""
