"""Stores in buckets (S3, Google, Azure) and, to read, on web servers, through the library obstore.

Nothing here is imported before a URL is named.
"""
