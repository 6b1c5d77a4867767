"""The devices of this machine, and the slots that runs take."""
