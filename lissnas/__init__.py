"""lissnas: locality-based iterative search space shrinkage for neural architecture search."""

__version__ = "0.1.0"
