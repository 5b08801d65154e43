"""What may be said: values and their JSON form, durations, events.

Nothing here knows of processes, stores or time.
"""
