"""The page that shows a run: what is computed for it from rows, and how it becomes one file."""
