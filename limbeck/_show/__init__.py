"""Figures and tables, as a person reads them."""
