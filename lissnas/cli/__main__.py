"""The `lissnas` command as `python -m lissnas.cli`."""

from lissnas.cli.app import main

if __name__ == "__main__":
    main()
