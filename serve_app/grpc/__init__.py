"""Open Inference Protocol over gRPC, and its listener."""
