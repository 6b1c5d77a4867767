"""`python -m flowrl_cli` is `flowrl`."""

from flowrl_cli.entry import listen, main

listen()

import os  # noqa: E402
import sys  # noqa: E402

# As for `flowrl`, no file of the working directory comes before an installed package. (Python itself leaves out one
# that is gone.)
try:
    is_first = not sys.flags.safe_path and sys.path[:1] == [os.getcwd()]
except OSError:
    is_first = False
if is_first:
    sys.path.append(sys.path.pop(0))

main()
