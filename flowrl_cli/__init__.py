"""The `flowrl` command: what a person types."""

import sys

if sys.argv[:1] == ["-m"]:  # while Python looks for the module that it was asked to run, which is this package's
    from flowrl_core.entry import listen

    listen()

from flowrl_core.installation import anchor, prefer_installed

anchor()
prefer_installed()
