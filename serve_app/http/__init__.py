"""Open Inference Protocol and OpenAI routes over HTTP, and their listener."""
