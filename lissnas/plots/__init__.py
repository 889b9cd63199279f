"""Figures made from plain data."""
