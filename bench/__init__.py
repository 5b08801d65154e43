"""Side by side with the peers, and the bars the engine must clear: `python -m bench --help`."""
