"""Where it is kept: one folder a store, SQL in files, numbered migrations.

A store knows batches and rows. It never knows processes, steps or what an entry means.
"""
