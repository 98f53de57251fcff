"""Many adapters, one base model, one batch: the right adapter's answer or an error, never silently the base's."""
