"""Networks: from normalised images to logits."""
