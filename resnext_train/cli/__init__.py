"""The commands: parsers.py, requests.py to check without torch, a module per command; main.py joins them."""
