"""HTTP/2 (RFC 9113) over asyncio, for a server. Knows nothing of what its streams carry."""
