"""Looking at verifications: pages made on the server, a little script, nothing from any other host."""
