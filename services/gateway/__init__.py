"""gateway: the one public door. It checks API keys and passes requests on, streaming, to the service that answers them."""
