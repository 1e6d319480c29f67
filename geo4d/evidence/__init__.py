"""What motion tells a predictor and the fusion: swept depth, what moves, how sure both are."""
