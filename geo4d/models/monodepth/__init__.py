"""Any network that gives depth or disparity of single pictures, as a predictor of windows."""
