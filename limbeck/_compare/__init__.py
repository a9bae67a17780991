"""Recipes against each other and against the plain student: several seeds, a leaderboard."""
