"""`genprm sandbox bench`: what a kernel costs, ours and others', measured in one run on this machine."""
