"""From ratings and links to `preferences.json`."""
