"""How fast the stages are, as ratios to a floor measured in the same run (`cpsae bench`)."""
