"""The name of our service."""

SERVICE = "inference.GRPCInferenceService"
