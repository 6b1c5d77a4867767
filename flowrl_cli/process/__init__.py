"""The process of a command: its interpreter, account, signals and terminal."""
