"""How people write processes: the decorators and the words of process code.

Thin: each word finds the run it is used in and asks the kernel.
"""
