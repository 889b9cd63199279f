"""The version, in a separate module so that `lissnas --version` imports nothing else; pyproject.toml reads it."""

__version__ = "0.1.0"
