"""The only code that touches media files. Everything but `sandbox` runs inside its child process."""
