"""The world outside the engine: four HTTP services with their own databases and their own faults."""
