"""This checkout against an older one."""
