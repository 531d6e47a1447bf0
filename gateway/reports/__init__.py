"""Reports: a plugin's figures over the history of one property, run when asked for and kept as tables."""
