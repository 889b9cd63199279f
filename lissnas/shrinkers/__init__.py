"""Shrinkers: from a space and someone who judges architectures to a smaller space."""
