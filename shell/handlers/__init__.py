"""What the page's controls do, one file per stage; nothing here imports the web framework."""
