"""Many raters together: pooling, and a differentially private release with its account."""
