"""From run directories to tables and plots; reads files alone and imports no deep-learning library."""
