"""A data set and its people's preferences become a revised data set; then its originals go."""
