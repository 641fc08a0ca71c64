"""Ray Serve: the server is `benchmarks.servers.ray_serve_default`, here are its requirements."""
