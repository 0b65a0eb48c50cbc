"""Training: labelled conversations in, an adapter out, which goes back into the verifier."""
