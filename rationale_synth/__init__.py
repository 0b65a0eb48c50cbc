"""The data factory: rollouts, labels, rationales and consensus (none of it is built yet)."""
