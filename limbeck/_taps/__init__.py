"""What `limbeck.taps` is made of: paths, hooks, a pass that disturbs nothing, proposals."""
