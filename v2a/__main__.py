"""`python -m v2a` is `v2a`."""

from v2a.cli import main

if __name__ == "__main__":
    main()
