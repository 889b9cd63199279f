"""The stages of the pipeline as plain functions, which the commands and flows call."""
