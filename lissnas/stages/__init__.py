"""The stages of the pipeline as plain functions: what the command runs and what the flows run."""
