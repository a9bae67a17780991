"""The verb `check`: one dry step, and what is wrong with a recipe."""
