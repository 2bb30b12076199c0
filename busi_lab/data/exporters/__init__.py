"""A dataset of any layout -> the formats of other programs, a file for each; ``command`` lists them."""
