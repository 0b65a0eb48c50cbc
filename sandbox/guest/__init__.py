"""What runs on the other side of the wall: the kernel server and the kernels it forks.

Everything in this package runs inside the container (or, with the local backend, in child processes) and
uses the standard library and pyzmq only, so that the image needs nothing of ours but this folder.
"""
