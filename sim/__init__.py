"""Co-simulation: scenarios, the event engine, files, comparison, plots and the command line."""
