"""The world outside the company's engine: four HTTP services with their own databases and their own faults."""
