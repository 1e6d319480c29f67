"""Code of other packages, by entry points: predictors, readers, export formats, trackers."""
