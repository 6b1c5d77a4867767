"""The `flowrl` command: what a person types. (Nothing is imported here: see `entry`.)"""
