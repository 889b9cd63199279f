"""The documentation: pages, and the hooks that make the generated ones."""
