"""What runs hold, as tables and figures of numbers; no words for readers and no drawing."""
