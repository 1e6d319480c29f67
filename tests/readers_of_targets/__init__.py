"""Readers written from the rules of the tools that exports are for. They share no code with geo4d, on purpose."""
