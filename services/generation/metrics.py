"""What generation counts."""

from prometheus_client import Counter, Gauge

PROMPTS = Counter("headwater_generation_prompts_total", "Prompts answered or not, by outcome.", ("outcome",))
TOKENS = Counter("headwater_generation_tokens_total", "Tokens sampled from the engines.")
SWITCHES = Counter("headwater_generation_switches_total", "Full weights replaced in an engine.", ("engine",))
REPLICA_LOAD = Gauge("headwater_generation_replica_prompts", "Prompts that run or wait at a replica.", ("engine",))
REPLICA_READY = Gauge("headwater_generation_replica_ready", "1 when the replica takes traffic.", ("engine",))
