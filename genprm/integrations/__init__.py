"""The verifier in other people's loops: TRL, OpenRLHF, datasets, search-and-learn."""
