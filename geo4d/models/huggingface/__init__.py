"""Depth networks of the package transformers, by the name of a repository on the Hugging Face hub or by a folder."""
