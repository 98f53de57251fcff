"""The log read again: datasets, stories, refolds, and letters that go back."""
