"""What a run is made of: console, plan, phases, folder, closing table."""
