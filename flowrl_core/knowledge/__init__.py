"""The knowledge bases that ship with FlowRL, as TOML files."""
