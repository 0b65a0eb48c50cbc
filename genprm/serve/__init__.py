"""The HTTP server: what a verifier can do, over the wire."""
