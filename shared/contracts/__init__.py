"""What crosses a service boundary: frozen pydantic models, each saying who makes it and who reads it.

Imports nothing of ours. Wire types only; domain types and table rows live with their owners.
"""
