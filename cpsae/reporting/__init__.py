"""Runs beside each other: what is alike, a table, a picture."""
