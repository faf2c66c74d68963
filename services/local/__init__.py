"""Headwater on one machine: the same processes as in the cluster, started and watched from one command."""
