"""`python -m flowrl_cli` is `flowrl`."""

from flowrl_cli.entry import listen, main

listen()

import os  # noqa: E402
import sys  # noqa: E402

# As with `flowrl`, no file of the working directory takes precedence over an installed package. (Python itself skips a
# working directory that was deleted.)
try:
    is_first = not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]
except OSError:
    is_first = False
if is_first:
    sys.path.append(sys.path.pop(0))

main()
