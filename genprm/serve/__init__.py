"""The HTTP server: what a verifier can do, over the wire."""

LIBRARIES = ("fastapi", "uvicorn", "prometheus_client")
"""What it takes, of the extra `serve`."""
