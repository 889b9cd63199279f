"""The `lissnas` command."""
