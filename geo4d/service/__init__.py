"""Reconstruction over HTTP: jobs in a folder, processes that work on them, an API and its page."""
