"""What is said: every file builds sections; :mod:`.contents` has their order, for all writers alike."""
