"""The `flowrl` command line. (Nothing is imported here: see `entry`.)"""
