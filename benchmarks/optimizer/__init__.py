"""How good the optimizer's plans are, and how long they take."""
