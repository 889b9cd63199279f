"""Figures of results."""

from lissnas.core.environment import give_matplotlib_a_folder

give_matplotlib_a_folder()  # before Matplotlib is imported
