"""Networks and their mathematics: single-device, plain PyTorch, no I/O but `save_pretrained` and `from_pretrained` (`hub.py`)."""
