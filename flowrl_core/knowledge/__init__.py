"""What ships with FlowRL on each environment: the knowledge base (TOML), the game's rules, recorded experience."""
