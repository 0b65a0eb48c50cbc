"""``python -m sandbox.guest``: run one kernel server until it is told to stop or loses its owner."""

from sandbox.guest.starting import main

main()
