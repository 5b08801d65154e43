"""Who does it: the node that runs instances, one concern a file.

The engine owns what is in memory. It knows stores only through `kernel.ports` and never reads before a step.
"""
