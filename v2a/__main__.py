"""Lets `python -m v2a` run the `v2a` command."""

from v2a.cli import main

if __name__ == "__main__":
    main()
