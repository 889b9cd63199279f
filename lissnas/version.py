"""The version, on its own so that `lissnas --version` imports nothing else; pyproject.toml reads it from here."""

__version__ = "0.1.0"
