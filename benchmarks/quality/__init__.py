"""What distillation gains: every method against the plain student and plain KD, on one budget."""
