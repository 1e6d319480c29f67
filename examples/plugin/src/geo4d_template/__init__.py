"""A template: one predictor, one reader, one export format and one tracker for geo4d, from a package of its own."""
