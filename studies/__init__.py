"""Long, resumable experiments with the code of the pipeline, and their committed results."""
