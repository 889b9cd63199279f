"""The documentation: its pages, and hooks that generate some of them."""
