"""Searches for a right answer that a verifier guides: each method a module with one function."""
