"""A store in memory, for simulation and tests: the same promises, nothing on disk.

Its `Disk` outlives the store objects opened on it, as a file outlives the processes that open it.
"""
