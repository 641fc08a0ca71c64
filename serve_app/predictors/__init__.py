"""Model code: one runtime per module, imported only when a config names it."""
