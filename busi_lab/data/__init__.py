"""From a folder of scans to batches: index, split, transforms, datamodule."""
