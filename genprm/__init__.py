"""Code-verified generative process reward models."""
