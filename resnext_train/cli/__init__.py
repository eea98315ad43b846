"""The commands; each module has main() and imports torch only after its arguments are understood."""
