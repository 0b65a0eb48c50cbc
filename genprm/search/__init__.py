"""Using a verifier to get better answers out of a policy: a small module for each way."""
