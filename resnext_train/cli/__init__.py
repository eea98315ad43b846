"""The commands. Each module has main() and imports torch only after it has checked its arguments."""
