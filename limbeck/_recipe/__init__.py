"""What a recipe is made of: TOML with places, tables, overrides, messages."""
