"""One run: what is built, fitted, continued, judged and written for it."""
