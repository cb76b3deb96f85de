"""What `app.py` is put together from; nothing here imports the web framework."""
