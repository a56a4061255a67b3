"""What a hub is told: TOML to frozen dataclasses, a module for each table, every fault listed at once."""
