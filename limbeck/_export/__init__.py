"""Files for the device, each kept only after it ran in its own runtime and agreed."""
