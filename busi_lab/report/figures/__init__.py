"""What is drawn, from results: one description of a figure, and one drawing of it for files and for the page."""
