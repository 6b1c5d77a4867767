"""`python -m flowrl_cli` is `flowrl`."""

import os
import sys

# As for `flowrl`, no file of the working directory comes before an installed package.
if not sys.flags.safe_path and sys.path and sys.path[0] == os.getcwd():
    sys.path.append(sys.path.pop(0))

from flowrl_cli.app import main

main()
