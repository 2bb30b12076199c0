"""A report on paper: the page, Markdown, the terminal's text and CSV."""
