"""The checks of `flowrl doctor`."""
