"""What the cluster is compared with: each server is one command."""
