"""The commands: main.py parses, requests.py checks without torch, and a module per command carries out."""
