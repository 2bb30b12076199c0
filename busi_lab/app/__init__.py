"""A page on which trained runs are applied to scans: models, findings, papers, corrections, and Gradio's part of it."""
