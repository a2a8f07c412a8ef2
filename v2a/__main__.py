"""Lets `python -m v2a` run the `v2a` command.

Python has put the current folder first on the path, where a file could take any module's place. It
leaves the path here, unless v2a itself lies there. Python's own start came before; the command
`v2a` has no such gap.
"""

import os
import sys

if sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
    del sys.path[0]

from v2a.cli import main

if __name__ == "__main__":
    main()
