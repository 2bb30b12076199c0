"""From run directories to a report: results, figures, sections, writers. Reads files alone, without deep learning."""
