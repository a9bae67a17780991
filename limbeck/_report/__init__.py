"""The page of a run: plain facts in, one self-contained HTML file out. Knows no run and no network."""
