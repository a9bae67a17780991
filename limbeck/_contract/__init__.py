"""What the contract suite runs methods on."""
