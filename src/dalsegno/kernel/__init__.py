"""What happens: journal entries, the deterministic loop, replay, saga bookkeeping, retry, limits, ports.

Pure: never a clock, a disk, a socket or a thread. Whoever drives it says what time it is.
"""
