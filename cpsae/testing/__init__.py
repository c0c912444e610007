"""Checks that authors of kinds run on their own: classes of pytest tests to inherit from."""
