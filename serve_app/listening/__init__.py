"""What the listeners of both protocols share: a port, its connections, and their patience."""
