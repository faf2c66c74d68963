"""HTTP out: the vLLM engines, and other people's OpenAI-compatible servers."""
