"""`lptd doctor`: what of this machine keeps the daemon from serving, and what to type about it.

It only looks: at files of /proc, /sys, /dev and /etc, below a root that a test may choose.
"""
